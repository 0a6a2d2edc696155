//! Management of vDPA devices over HTTP.

use picoserve::request::RequestParts;
use vdpa_tool::{Command, Form, Output, ToolError};
use web::management::{self, Admin, ROOT, Refusal, Request};

use crate::answer::Answer;
use crate::site::{Site, header};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The path below the root of management, if the request is for it.
pub(crate) fn path<'a>(request: &RequestParts<'a>) -> Option<&'a str> {
    let below = request.path().encoded().strip_prefix(ROOT)?;
    (below.is_empty() || below.starts_with('/')).then_some(below)
}

/// The answer to a request below that root. `body` is `None`, if it is too long.
pub(crate) async fn answer(
    site: &Site,
    request: &RequestParts<'_>,
    path: &str,
    body: Option<&[u8]>,
) -> Answer {
    let result = match body {
        Some(body) => carry_out(site, request, path, body).await,
        None => Err(Refusal::too_long()),
    };
    let answer = match result {
        Ok(answer) => answer,
        Err(refusal) => {
            let answer = Answer::text(refusal.status, JSON, refusal.json());
            match refusal.status {
                405 => answer.with_header("Allow", "GET, HEAD, POST, DELETE"),
                _ => answer,
            }
        }
    };
    let answer = answer.uncached();
    match request.method() {
        "HEAD" => answer.without_body(),
        _ => answer,
    }
}

async fn carry_out(
    site: &Site,
    request: &RequestParts<'_>,
    path: &str,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let asked = Request {
        method: request.method(),
        path,
        content_type: header(request, "Content-Type"),
        host: header(request, "Host"),
        origin: header(request, "Origin"),
        fetch_site: header(request, "Sec-Fetch-Site"),
        body,
    };
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
    let output = vdpa_tool::run(site.system.management(), command).await;
    output.map_err(|refused| ToolError::from(refused).into())
}

/// The key `admin` of the kernel's command line.
fn admin(site: &Site) -> Admin {
    match site.system.command_line().get("admin") {
        Some("http") => Admin::Everybody,
        _ => Admin::Nobody,
    }
}
