//! An answer before it is sent: status, headers and where its bytes come from.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;

use web::http::refusal::Refusal;
use web::listing;

use crate::download::Download;
use crate::files::Files;

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content: Option<Content>,
}

/// The body of an answer.
pub(crate) struct Content {
    pub(crate) media_type: &'static str,
    pub(crate) payload: Payload,
}

/// Where the bytes of a body come from.
pub(crate) enum Payload {
    /// From memory.
    Text(String),
    /// From the disk.
    Download(Download),
    /// Made while it is sent.
    Listing(Box<listing::Page>, Rc<Files>),
    /// From nowhere: only the length is told, if it is known, as for `HEAD`.
    Length(Option<u64>),
}

impl Payload {
    /// The number of bytes, if it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Text(text) => u64::try_from(text.len()).ok(),
            Self::Download(download) => Some(download.length()),
            Self::Listing(..) => None,
            Self::Length(length) => *length,
        }
    }
}

impl Answer {
    pub(crate) fn new(status: u16, media_type: &'static str, payload: Payload) -> Self {
        Self {
            status,
            headers: Vec::from([("X-Content-Type-Options", "nosniff".to_string())]),
            content: Some(Content {
                media_type,
                payload,
            }),
        }
    }

    pub(crate) fn text(status: u16, media_type: &'static str, text: String) -> Self {
        Self::new(status, media_type, Payload::Text(text))
    }

    pub(crate) fn html(status: u16, page: String) -> Self {
        Self::text(status, HTML, page)
    }

    /// A page with a headline and one sentence without its full stop.
    pub(crate) fn message(status: u16, headline: &str, sentence: &dyn Display) -> Self {
        Self::html(status, listing::message(status, headline, sentence)).uncached()
    }

    /// A request that was not read to its end.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self::text(refusal.status(), TEXT, format!("{refusal}\n")).uncached()
    }

    /// Others have the memory that the answer needs.
    pub(crate) fn busy() -> Self {
        let text = "there is not enough memory for the answer at the moment\n";
        Self::text(503, TEXT, text.to_string())
            .uncached()
            .with_header("Retry-After", "1")
    }

    /// The client's copy is good.
    pub(crate) fn not_modified() -> Self {
        Self::empty(304)
    }

    /// What can be done here, for `OPTIONS`.
    pub(crate) fn options(methods: &str) -> Self {
        Self::empty(204).with_header("Allow", methods)
    }

    fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: None,
        }
    }

    /// The resource has its address elsewhere, for good.
    pub(crate) fn redirect(location: &str) -> Self {
        Self::message(301, "Moved", &format!("It is at {location}"))
            .with_header("Location", location)
    }

    /// The answer is good for now only.
    pub(crate) fn uncached(self) -> Self {
        self.with_header("Cache-Control", "no-store")
    }

    /// The same answer without its body, for `HEAD`.
    pub(crate) fn without_body(mut self) -> Self {
        if let Some(content) = &mut self.content {
            content.payload = Payload::Length(content.payload.length());
        }
        self
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}
