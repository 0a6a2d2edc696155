//! The line that somebody types on the console: what is in it, and what the terminal shows of it.
//!
//! A terminal or a program may be at the other end: a line ends with a carriage return, a line feed
//! or both, and what is no text is passed over, escape sequences as a whole.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt::{self, Write};

/// The longest line, in bytes.
pub(crate) const LINE_MAX: usize = 256;
/// What stands before the line as soon as there is something in it.
const PROMPT: &str = "> ";
/// Back to the start of the terminal's line, and nothing in it (ECMA-48, 8.3.41).
const WIPE: &str = "\r\x1b[K";

const BELL: u8 = 0x07;
const BACKSPACE: u8 = 0x08;
const TAB: u8 = b'\t';
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;
/// Control and C, and control and U: the line is given up.
const GIVE_UP: [u8; 2] = [0x03, 0x15];

/// A line being typed.
#[derive(Debug)]
pub(crate) struct LineEditor {
    text: heapless::String<LINE_MAX>,
    last: u8,
    sequence: Sequence,
}

/// Where in an escape sequence the input is (ECMA-48, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sequence {
    Outside,
    Begun,
    Parameters,
}

impl LineEditor {
    /// An empty line.
    pub(crate) const fn new() -> Self {
        Self {
            text: heapless::String::new(),
            last: 0,
            sequence: Sequence::Outside,
        }
    }

    /// Takes a byte that was typed and shows its effect on `terminal`. Returns the line when it is
    /// complete and not blank.
    pub(crate) fn feed(
        &mut self,
        byte: u8,
        terminal: &mut impl Write,
    ) -> Result<Option<String>, fmt::Error> {
        let last = core::mem::replace(&mut self.last, byte);
        if self.passes_over(byte) {
            return Ok(None);
        }
        match byte {
            b'\n' if last == b'\r' => {}
            b'\r' | b'\n' => return self.end(terminal),
            BACKSPACE | DELETE => self.take_back(terminal)?,
            TAB => self.insert(' ', terminal)?,
            b' '..=b'~' => self.insert(byte.into(), terminal)?,
            _ if GIVE_UP.contains(&byte) => {
                self.hide(terminal)?;
                self.text.clear();
            }
            _ => {}
        }
        Ok(None)
    }

    /// Takes the line off the terminal, for something else to be written.
    pub(crate) fn hide(&self, terminal: &mut impl Write) -> fmt::Result {
        if self.text.is_empty() {
            return Ok(());
        }
        terminal.write_str(WIPE)
    }

    /// Puts the line on the terminal again, at the start of a line.
    pub(crate) fn show(&self, terminal: &mut impl Write) -> fmt::Result {
        if self.text.is_empty() {
            return Ok(());
        }
        write!(terminal, "{PROMPT}{}", self.text)
    }

    /// Whether the byte belongs to an escape sequence.
    fn passes_over(&mut self, byte: u8) -> bool {
        let (belongs, next) = match (self.sequence, byte) {
            (_, ESCAPE) => (true, Sequence::Begun),
            (Sequence::Outside, _) => (false, Sequence::Outside),
            (Sequence::Begun, b'[' | b'O') => (true, Sequence::Parameters),
            (Sequence::Begun, b' '..=b'~') => (true, Sequence::Outside),
            (Sequence::Parameters, b' '..=b'?') => (true, Sequence::Parameters),
            (Sequence::Parameters, b'@'..=b'~') => (true, Sequence::Outside),
            // A broken sequence ends where text or a control character cannot be part of it.
            (Sequence::Begun | Sequence::Parameters, _) => (false, Sequence::Outside),
        };
        self.sequence = next;
        belongs
    }

    fn insert(&mut self, letter: char, terminal: &mut impl Write) -> fmt::Result {
        if self.text.is_empty() {
            if letter == ' ' {
                return Ok(());
            }
            terminal.write_str(PROMPT)?;
        }
        match self.text.push(letter) {
            Ok(()) => terminal.write_char(letter),
            Err(_) => terminal.write_char(BELL.into()),
        }
    }

    fn take_back(&mut self, terminal: &mut impl Write) -> fmt::Result {
        match self.text.pop() {
            Some(_) if self.text.is_empty() => terminal.write_str(WIPE),
            Some(_) => terminal.write_str("\x08 \x08"),
            None => Ok(()),
        }
    }

    fn end(&mut self, terminal: &mut impl Write) -> Result<Option<String>, fmt::Error> {
        if self.text.is_empty() {
            return Ok(None);
        }
        terminal.write_char('\n')?;
        let line = self.text.as_str().trim_end().to_owned();
        self.text.clear();
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// What was typed line by line, and what the terminal was sent.
    fn typed(bytes: &[u8]) -> (Vec<String>, String) {
        let mut editor = LineEditor::new();
        let mut terminal = String::new();
        let mut lines = Vec::new();
        for byte in bytes {
            lines.extend(editor.feed(*byte, &mut terminal).unwrap());
        }
        (lines, terminal)
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        typed(bytes).0
    }

    #[test]
    fn a_line_ends_with_a_return_a_line_feed_or_both() {
        assert_eq!(lines(b"one\rtwo\nthree\r\nfour"), ["one", "two", "three"]);
        assert_eq!(lines(b"a\r\n\r\n\n\r\rb\n"), ["a", "b"]);
        assert!(lines(b"   \n\t\n").is_empty(), "blank lines are none");
    }

    #[test]
    fn what_is_typed_is_shown_behind_a_prompt() {
        assert_eq!(typed(b"").1, "");
        assert_eq!(typed(b"ab").1, "> ab");
        assert_eq!(typed(b"ab\rc").1, "> ab\n> c");
    }

    #[test]
    fn characters_can_be_taken_back_but_no_further_than_there_are() {
        assert_eq!(lines(b"\x7f\x08ax\x7fb\x08c\n"), ["ac"]);
        assert_eq!(typed(b"ab\x08").1, "> ab\x08 \x08");
        assert_eq!(typed(b"a\x7f").1, "> a\r\x1b[K", "the prompt goes too");
    }

    #[test]
    fn a_line_can_be_given_up() {
        assert_eq!(lines(b"rm\x03ls\x15dev\n"), ["dev"]);
    }

    #[test]
    fn escape_sequences_and_other_bytes_leave_no_trace() {
        assert_eq!(lines(b"d\x1b[Ae\x1b[1;5Cv\x1bOP\x1bx\n"), ["dev"]);
        assert_eq!(lines(b"d\x00\x01e\xffv\xc3\xa4\n"), ["dev"]);
        assert_eq!(
            lines(b"dev\x1b[\n\n"),
            ["dev"],
            "a sequence that is cut off"
        );
        assert_eq!(lines(b"dev\x1b[12\x1b[A\n"), ["dev"]);
    }

    #[test]
    fn a_line_has_an_end() {
        let long = [b'x'; LINE_MAX + 3];
        let (lines, terminal) = typed(&[&long, &b"\n"[..]].concat());
        assert_eq!(lines, [std::str::from_utf8(&long[..LINE_MAX]).unwrap()]);
        assert!(terminal.ends_with("x\x07\x07\x07\n"));
    }

    #[test]
    fn a_message_can_stand_where_the_line_was() {
        let mut editor = LineEditor::new();
        let mut terminal = String::new();
        editor.hide(&mut terminal).unwrap();
        editor.show(&mut terminal).unwrap();
        assert_eq!(terminal, "", "there is nothing to hide");
        for byte in b"dev" {
            editor.feed(*byte, &mut terminal).unwrap();
        }
        terminal.clear();
        editor.hide(&mut terminal).unwrap();
        terminal.push_str("message\n");
        editor.show(&mut terminal).unwrap();
        assert_eq!(terminal, "\r\x1b[Kmessage\n> dev");
    }
}
