//! The ways to show a result.

/// How a result is to be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As text or as JSON.
    pub form: Form,
    /// With names or numbers.
    pub numbers: Numbers,
}

/// As text or as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For both: indented.
    PrettyJson,
}

/// What stands for types and features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// Their names.
    #[default]
    Names,
    /// Their numbers.
    Raw,
}

impl Options {
    pub(crate) fn json(&mut self) {
        if self.form == Form::Text {
            self.form = Form::Json;
        }
    }

    /// Also without the option for JSON, which the program demands besides.
    pub(crate) fn pretty(&mut self) {
        self.form = Form::PrettyJson;
    }
}
