//! The program under test, started and ended.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A card that waits for a client or has one.
pub struct Program {
    child: Child,
    said: BufReader<ChildStdout>,
    folder: TempDir,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
    pub complained: String,
}

impl Program {
    /// Starts a card of this product.
    pub fn start(product: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The caller may choose another one.
        let own = folder.path().join("card");
        let chosen = more.iter().position(|word| *word == "--socket");
        let socket = chosen.map_or(own, |at| more[at + 1].into());
        let more: Vec<&str> = match chosen {
            Some(at) => [&more[..at], &more[at + 2..]].concat(),
            None => more.into(),
        };
        let mut child = Command::new(env!("CARGO_BIN_EXE_ifcvf-card"))
            .current_dir(folder.path())
            .args(["--product", product, "--socket"])
            .arg(&socket)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, format!("ifcvf-card: {product} waits\n"));
        Self {
            child,
            said,
            folder,
        }
    }

    /// A block card with a disk of so many sectors, each full of its number's low byte.
    pub fn blk(sectors: u64, more: &[&str]) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        for sector in 0..sectors {
            image
                .as_file()
                .write_all(&[sector.to_le_bytes()[0]; 512])
                .unwrap();
        }
        let path = image.path().to_str().unwrap().to_owned();
        let program = Self::start("modern-blk", &[&["--disk", &path], more].concat());
        // The program has it open, and the test finds it under this name.
        std::fs::hard_link(&path, program.image()).unwrap();
        program
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("card")
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// A path beside the socket.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Types a line on its standard input.
    pub fn order(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(2));
        };
        let mut ended = Ended {
            code: status.code(),
            said: String::new(),
            complained: String::new(),
        };
        let [stdout, stderr] = [&mut ended.said, &mut ended.complained];
        self.said.read_to_string(stdout).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(stderr)
            .unwrap();
        assert!(!ended.complained.contains("panicked"), "{ended:?}");
        ended
    }

    /// Waits for its end, which must be a good one, without anything said against the driver.
    pub fn finish_well(self) {
        let ended = self.finish();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.said.contains("the driver"), "{ended:?}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end with these words alone.
pub fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ifcvf-card"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}
