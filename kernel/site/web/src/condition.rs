//! Conditional requests: does the client already have this version, and may it have a part of it
//! (RFC 9110, section 13)?
//!
//! A version is told by an entity tag made from the size and the time of the last change, and by
//! that time itself.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};

use hadris_fs::DateTime;

use crate::date::HttpDate;
use crate::range::{self, Selection};

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The strong entity tag, with its quotes.
    pub tag: String,
    /// The time of the last change, as an HTTP date.
    pub last_modified: Option<String>,
    /// The same in seconds since 1970.
    modified: Option<i64>,
}

impl Version {
    /// The version of a file of `length` bytes, changed at `modified`.
    #[must_use]
    pub fn new(length: u64, modified: Option<DateTime>) -> Self {
        let seconds = modified.map(|time| time.unix_seconds());
        Self {
            tag: format!("\"{length:x}-{:x}\"", seconds.unwrap_or(0)),
            last_modified: modified.map(|time| HttpDate(time).to_string()),
            modified: seconds,
        }
    }

    /// Whether `value`, a tag or a date, names exactly this version (RFC 9110, 13.1.5).
    fn is_named_by(&self, value: &str) -> bool {
        value == self.tag || self.last_modified.as_deref() == Some(value)
    }

    /// Whether this version has changed after `date`. `None`, if one of the times is not known or
    /// no date: such a condition is ignored (RFC 9110, 13.1.3 and 13.1.4).
    fn has_changed_since(&self, date: &str) -> Option<bool> {
        let date = HttpDate::parse(date)?;
        Some(self.modified? > date.0.unix_seconds())
    }

    /// Whether a list of tags holds this one, weakly compared (RFC 9110, 8.8.3.2 and 13.1.2).
    fn is_in(&self, tags: &str) -> bool {
        tags.trim() == "*"
            || tags
                .split(',')
                .map(str::trim)
                .any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == self.tag)
    }

    /// Whether a list of tags holds this one, strongly compared (RFC 9110, 13.1.1).
    fn is_exactly_in(&self, tags: &str) -> bool {
        tags.trim() == "*" || tags.split(',').any(|tag| tag.trim() == self.tag)
    }
}

/// The conditional headers of one request.
#[derive(Clone, Debug, Default)]
pub struct Conditions<'a> {
    /// `If-Match`, all fields combined
    pub if_match: Option<Cow<'a, str>>,
    /// `If-Unmodified-Since`
    pub if_unmodified_since: Option<&'a str>,
    /// `If-None-Match`, all fields combined
    pub if_none_match: Option<Cow<'a, str>>,
    /// `If-Modified-Since`
    pub if_modified_since: Option<&'a str>,
    /// `If-Range`
    pub if_range: Option<&'a str>,
    /// `Range`
    pub range: Option<&'a str>,
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: this is not the version that the client means (412).
    Failed,
    /// Nothing: the client has this version (304).
    NotModified,
    /// These bytes, or word that there are none (200, 206, 416).
    Send(Selection),
}

impl Conditions<'_> {
    /// Applies the conditions in the order of RFC 9110, 13.2.2, to a file of `length` bytes.
    #[must_use]
    pub fn apply(&self, version: &Version, length: u64) -> Verdict {
        let changed = |date: Option<&str>| version.has_changed_since(date?);
        let is_another = match &self.if_match {
            Some(tags) => !version.is_exactly_in(tags),
            None => changed(self.if_unmodified_since) == Some(true),
        };
        if is_another {
            return Verdict::Failed;
        }
        let unchanged = match &self.if_none_match {
            Some(tags) => version.is_in(tags),
            None => changed(self.if_modified_since) == Some(false),
        };
        if unchanged {
            return Verdict::NotModified;
        }
        let may_be_a_part = self.if_range.is_none_or(|value| version.is_named_by(value));
        Verdict::Send(match self.range {
            Some(value) if may_be_a_part => range::select(value, length),
            _ => Selection::Whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn version() -> Version {
        Version::new(100, DateTime::from_unix_seconds(784_111_777).ok())
    }

    #[test]
    fn a_version_changes_with_size_and_time() {
        let later = DateTime::from_unix_seconds(784_111_779).ok();
        assert_eq!(version().last_modified.as_deref(), Some(DATE));
        assert_ne!(
            version().tag,
            Version::new(101, DateTime::from_unix_seconds(784_111_777).ok()).tag
        );
        assert_ne!(version().tag, Version::new(100, later).tag);
    }

    #[test]
    fn a_known_tag_needs_no_body() {
        let version = version();
        for tags in [
            version.tag.clone(),
            format!("\"x\", W/{}", version.tag),
            "*".into(),
        ] {
            let conditions = Conditions {
                if_none_match: Some(tags.as_str().into()),
                ..Conditions::default()
            };
            assert_eq!(
                conditions.apply(&version, 100),
                Verdict::NotModified,
                "{tags}"
            );
        }
    }

    #[test]
    fn an_unknown_tag_outweighs_a_known_date() {
        let conditions = Conditions {
            if_none_match: Some("\"other\"".into()),
            if_modified_since: Some(DATE),
            ..Conditions::default()
        };
        assert_eq!(
            conditions.apply(&version(), 100),
            Verdict::Send(Selection::Whole)
        );
    }

    #[test]
    fn dates_are_compared_and_what_is_none_is_ignored() {
        let whole = Verdict::Send(Selection::Whole);
        for (date, modified_since, unmodified_since) in [
            (DATE, Verdict::NotModified, whole.clone()),
            (
                "Sun, 06 Nov 1994 08:49:38 GMT",
                Verdict::NotModified,
                whole.clone(),
            ),
            (
                "Sunday, 06-Nov-94 08:49:37 GMT",
                Verdict::NotModified,
                whole.clone(),
            ),
            (
                "Sun, 06 Nov 1994 08:49:36 GMT",
                whole.clone(),
                Verdict::Failed,
            ),
            ("yesterday", whole.clone(), whole.clone()),
        ] {
            let conditions = Conditions {
                if_modified_since: Some(date),
                ..Conditions::default()
            };
            assert_eq!(conditions.apply(&version(), 100), modified_since, "{date}");
            let conditions = Conditions {
                if_unmodified_since: Some(date),
                ..Conditions::default()
            };
            assert_eq!(
                conditions.apply(&version(), 100),
                unmodified_since,
                "{date}"
            );
            let undated = Version::new(100, None);
            assert_eq!(conditions.apply(&undated, 100), whole, "{date}");
            let conditions = Conditions {
                if_match: Some("*".into()),
                ..conditions
            };
            assert_eq!(conditions.apply(&version(), 100), whole, "a tag counts");
        }
    }

    #[test]
    fn a_range_is_honoured_for_the_version_it_was_meant_for() {
        let version = version();
        for (if_range, expected) in [
            (None, Selection::Part(1..3)),
            (Some(version.tag.as_str()), Selection::Part(1..3)),
            (Some(DATE), Selection::Part(1..3)),
            (Some("\"other\""), Selection::Whole),
            (Some("W/\"64-2ebc9421\""), Selection::Whole),
        ] {
            let conditions = Conditions {
                if_range,
                range: Some("bytes=1-2"),
                ..Conditions::default()
            };
            assert_eq!(
                conditions.apply(&version, 100),
                Verdict::Send(expected),
                "{if_range:?}"
            );
        }
    }

    #[test]
    fn another_version_than_the_one_that_is_meant_is_not_sent() {
        let version = version();
        let weak = format!("W/{}", version.tag);
        let twice = format!("W/W/{}", version.tag);
        let listed = format!("\"x\", {}", version.tag);
        for (if_match, expected) in [
            (version.tag.as_str(), Verdict::Send(Selection::Whole)),
            (listed.as_str(), Verdict::Send(Selection::Whole)),
            ("*", Verdict::Send(Selection::Whole)),
            ("\"x\"", Verdict::Failed),
            (weak.as_str(), Verdict::Failed),
            ("", Verdict::Failed),
        ] {
            let conditions = Conditions {
                if_match: Some(if_match.into()),
                ..Conditions::default()
            };
            assert_eq!(conditions.apply(&version, 100), expected, "{if_match}");
        }
        let conditions = Conditions {
            if_none_match: Some(twice.into()),
            ..Conditions::default()
        };
        assert_eq!(
            conditions.apply(&version, 100),
            Verdict::Send(Selection::Whole)
        );
    }
}
