//! A machine that serves its disk over HTTP, and a client for it.

use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use qemu::device::{Disk, Net, NetBackend};
use qemu::guest::Guest;
use qemu::running::{RunError, Running};
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

/// What the console says once the site answers.
const SERVES: &str = "site: serving";

/// The port the guest listens on.
const GUEST_PORT: u16 = 80;

/// How long one answer may take before it counts as never.
const ANSWER: Duration = Duration::from_secs(120);

/// A site that answers.
#[derive(Debug)]
pub struct Site {
    running: Running,
    client: Client,
    console: Vec<String>,
}

/// Who asks a site. Threads can share it.
#[derive(Debug)]
pub struct Client {
    port: u16,
    agent: Agent,
}

impl Site {
    /// The usual machine for `kernel` with `image` as its disk, and the port that leads to it.
    ///
    /// # Errors
    ///
    /// When the host has no port left.
    pub fn machine(kernel: &Path, image: &Path) -> io::Result<(Guest, u16)> {
        // Free until somebody else takes it: the kernel hands out ephemeral ports in turn.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let net = Net::new(NetBackend::User {
            forwards: vec![(port, GUEST_PORT)],
        });
        let guest = Guest {
            append: "ip=dhcp".into(),
            nets: vec![net],
            disks: vec![Disk::new(image)],
            ..Guest::new(kernel)
        };
        Ok((guest, port))
    }

    /// Boots `guest` and waits until its console says that it serves.
    ///
    /// # Errors
    ///
    /// A [`RunError`] with the console in it, when it does not within `patience`.
    pub fn boot(guest: &Guest, port: u16, patience: Duration) -> Result<Self, Box<dyn Error>> {
        let mut running = guest.spawn()?;
        if let Err(error) = running.wait_for(SERVES, Instant::now() + patience) {
            let console = running.console().join("\n");
            let end = match error {
                RunError::Ended(_) => running.finish(Instant::now() + patience)?.complaints,
                _ => String::new(),
            };
            return Err(format!("{error}\n{console}\n{end}").into());
        }
        let console = running.console().to_vec();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(ANSWER))
            .build();
        let client = Client {
            port,
            agent: config.into(),
        };
        Ok(Self {
            running,
            client,
            console,
        })
    }

    /// What the console said until the site served.
    pub fn console(&self) -> &[String] {
        &self.console
    }

    /// Who asks it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Types a line on the console and waits for one that contains `expected`.
    ///
    /// # Errors
    ///
    /// A [`RunError`], when it does not come within `patience`.
    pub fn type_line(
        &mut self,
        line: &str,
        expected: &str,
        patience: Duration,
    ) -> Result<String, RunError> {
        self.running.type_line(line)?;
        self.running.wait_for(expected, Instant::now() + patience)
    }

    /// Waits for a line of the console that contains `expected`.
    ///
    /// # Errors
    ///
    /// A [`RunError`], when it does not come within `patience`.
    pub fn wait_for(&mut self, expected: &str, patience: Duration) -> Result<String, RunError> {
        self.running.wait_for(expected, Instant::now() + patience)
    }

    /// Whether the machine still runs: its console has not closed.
    pub fn is_running(&mut self) -> bool {
        loop {
            match self.running.next_line(Instant::now()) {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }
}

impl Client {
    /// The port of the loopback interface that leads to the site.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks for `path` with these headers.
    ///
    /// # Errors
    ///
    /// When no answer comes.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, ureq::Error> {
        let request = self.agent.get(self.url(path));
        headers
            .iter()
            .fold(request, |request, (name, value)| {
                request.header(*name, *value)
            })
            .call()
    }

    /// Asks for the headers of `path` alone.
    ///
    /// # Errors
    ///
    /// When no answer comes.
    pub fn head(&self, path: &str) -> Result<Response<Body>, ureq::Error> {
        self.agent.head(self.url(path)).call()
    }

    /// Sends a request with these headers and this body, and returns the status and the body of the
    /// answer.
    ///
    /// # Errors
    ///
    /// When no answer comes, or it is no text.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(u16, String), Box<dyn Error>> {
        let request = Request::builder().method(method).uri(self.url(path));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let response = if body.is_empty() {
            self.agent.run(request.body(())?)
        } else {
            self.agent.run(request.body(body)?)
        }?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().read_to_string()?))
    }

    /// The whole body of `path`, and its status.
    ///
    /// # Errors
    ///
    /// When no answer comes, or it is cut short.
    pub fn body(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(u16, Vec<u8>), Box<dyn Error>> {
        let response = self.get(path, headers)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        response.into_body().into_reader().read_to_end(&mut body)?;
        Ok((status, body))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Opens a connection to the guest behind `port` of the loopback interface.
///
/// QEMU's user network listens with a backlog of one connection. Of several that clients open at
/// once the host drops the rest, and lets a client that says nothing wait for minutes. So they are
/// opened one after the other, and each is with QEMU before the next one.
///
/// # Errors
///
/// When there is no connection, or QEMU does not take it.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    static ONE: Mutex<()> = Mutex::new(());
    const PATIENCE: Duration = Duration::from_secs(20);
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let end = Instant::now() + PATIENCE;
    while waits_for_its_listener(&fs::read_to_string("/proc/net/tcp")?, port) {
        if Instant::now() > end {
            return Err(ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(stream)
}

/// Whether `table`, which is `/proc/net/tcp`, says that the listener of `port` has connections to
/// accept (the receive queue of a listener counts them).
fn waits_for_its_listener(table: &str, port: u16) -> bool {
    const LISTENS: &str = "0A";
    let address = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state, queues) = (fields.next(), fields.nth(1), fields.next());
        local.is_some_and(|local| local.ends_with(&address))
            && state == Some(LISTENS)
            && queues.is_some_and(|queues| !queues.ends_with(":00000000"))
    })
}

/// The value of a header, if it is there and text.
pub fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_nobody_has_accepted_is_seen() {
        let table = |queue: &str, state: &str| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n   \
                 0: 0100007F:1F90 00000000:0000 {state} 00000000:{queue} 00:00000000 00000000\n"
            )
        };
        for (queue, state, port, expected) in [
            ("00000001", "0A", 8080, true),
            ("00000000", "0A", 8080, false),
            ("00000001", "01", 8080, false),
            ("00000001", "0A", 8081, false),
        ] {
            let waits = waits_for_its_listener(&table(queue, state), port);
            assert_eq!(waits, expected, "{queue} {state} {port}");
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let now = || waits_for_its_listener(&fs::read_to_string("/proc/net/tcp").unwrap(), port);
        assert!(now());
        drop(listener.accept().unwrap());
        assert!(!now());
    }
}
