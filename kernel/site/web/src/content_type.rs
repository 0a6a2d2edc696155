//! Media types by file name extension (IANA media types registry; text is UTF-8).

/// The `Content-Type` of a file with this name.
#[must_use]
pub fn of(name: &str) -> &'static str {
    let Some((_, extension)) = name.rsplit_once('.') else {
        return DEFAULT;
    };
    TYPES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension))
        .map_or(DEFAULT, |(_, media_type)| media_type)
}

/// Bytes of unknown kind: browsers offer them as a download.
pub const DEFAULT: &str = "application/octet-stream";

const TYPES: [(&str, &str); 48] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("toml", "text/plain; charset=utf-8"),
    ("rs", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("xml", "application/xml"),
    ("json", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("tgz", "application/gzip"),
    ("xz", "application/x-xz"),
    ("zst", "application/zstd"),
    ("bz2", "application/x-bzip2"),
    ("tar", "application/x-tar"),
    ("7z", "application/x-7z-compressed"),
    ("iso", "application/octet-stream"),
    ("bin", "application/octet-stream"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("ico", "image/vnd.microsoft.icon"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mkv", "video/matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
    ("wav", "audio/vnd.wave"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_decides_whatever_its_case() {
        assert_eq!(of("index.html"), "text/html; charset=utf-8");
        assert_eq!(of("PHOTO.JPG"), "image/jpeg");
        assert_eq!(of("archive.tar.gz"), "application/gzip");
    }

    #[test]
    fn unknown_files_are_bytes() {
        for name in ["README", "a.unknown", "trailing.", ".hidden"] {
            assert_eq!(of(name), DEFAULT, "{name}");
        }
    }

    #[test]
    fn no_extension_is_listed_twice() {
        for (index, (extension, _)) in TYPES.iter().enumerate() {
            assert!(
                TYPES[index + 1..]
                    .iter()
                    .all(|(other, _)| other != extension),
                "{extension}"
            );
        }
    }
}
