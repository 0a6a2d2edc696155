//! Management of vDPA devices and PCI functions over HTTP.

use ::pci::tool;
use vdpa_mgmt::tool::{Command, Form, Output, ToolError};
use web::http::head::Head;
use web::management::{self, Admin, Refusal, Request};
use web::pci;

use crate::answer::{Answer, TEXT};
use crate::site::Site;

const JSON: &str = "application/json";
const METHODS: &str = "GET, HEAD, POST, DELETE, OPTIONS";

/// A path that leads to management.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Below [`management::ROOT`].
    Vdpa(&'a str),
    /// Below [`pci::ROOT`].
    Pci(&'a str),
}

impl<'a> Place<'a> {
    /// Where the path leads, if it is there.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let below = |root| {
            let below = path.strip_prefix(root)?;
            (below.is_empty() || below.starts_with('/')).then_some(below)
        };
        let vdpa = below(management::ROOT).map(Self::Vdpa);
        vdpa.or_else(|| below(pci::ROOT).map(Self::Pci))
    }
}

/// The answer to a request there. `body` is `None`, if it is too long.
pub(crate) async fn answer(
    site: &Site,
    request: &Head<'_>,
    place: Place<'_>,
    body: Option<&[u8]>,
) -> Answer {
    if request.method == "OPTIONS" {
        return Answer::options(METHODS);
    }
    let result = match body {
        Some(body) => carry_out(site, request, place, body).await,
        None => Err(Refusal::too_long()),
    };
    let answer = match result {
        Ok(answer) => answer,
        Err(refusal) => {
            let answer = Answer::text(refusal.status, JSON, refusal.json());
            match refusal.status {
                405 => answer.with_header("Allow", METHODS),
                _ => answer,
            }
        }
    };
    let answer = answer.uncached();
    match request.method {
        "HEAD" => answer.without_body(),
        _ => answer,
    }
}

async fn carry_out(
    site: &Site,
    request: &Head<'_>,
    place: Place<'_>,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let (Place::Vdpa(path) | Place::Pci(path)) = place;
    let asked = Request {
        method: request.method,
        path,
        content_type: request.value("Content-Type"),
        host: request.host(),
        origin: request.value("Origin"),
        fetch_site: request.value("Sec-Fetch-Site"),
        body,
    };
    if let Place::Pci(_) = place {
        let command = pci::command(&asked, admin(site))?;
        let functions = tool::run(site.system.pci(), command).await?;
        return Ok(Answer::text(200, JSON, functions.json()));
    }
    let invocation = management::invocation(&asked, admin(site))?;
    let output = run(site, &invocation.command).await?;
    let status = match invocation.command {
        Command::Add { .. } => 201,
        _ => 200,
    };
    let media_type = match invocation.options.form {
        Form::Text => TEXT,
        Form::Json | Form::PrettyJson => JSON,
    };
    Ok(Answer::text(
        status,
        media_type,
        output.print(invocation.options),
    ))
}

async fn run(site: &Site, command: &Command) -> Result<Output, Refusal> {
    let output = vdpa_mgmt::tool::run(site.system.management(), command).await;
    output.map_err(|refused| ToolError::from(refused).into())
}

/// The key `admin` of the kernel's command line.
fn admin(site: &Site) -> Admin {
    match site.system.command_line().get("admin") {
        Some("http") => Admin::Everybody,
        _ => Admin::Nobody,
    }
}
