//! What the fuzz targets do with their input. A run panics where the tool breaks a promise.

mod machine;
mod tool_json;
mod tool_words;

pub use tool_json::tool_json;
pub use tool_words::tool_words;
