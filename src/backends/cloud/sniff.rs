//! What kind of body begins with these bytes, whatever the headers call it. Pure.

/// The kind of a body that should be a stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Events,
    /// An object or a list.
    Json,
    /// A page for people, a text, or nothing that is known.
    Other,
}

/// `None` until enough has come. `is_labelled` if the headers call it a stream of events.
pub(super) fn kind(begun: &[u8], is_labelled: bool) -> Option<Kind> {
    let begun = begun.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begun).trim_ascii_start();
    Some(match begun.first()? {
        b'{' | b'[' => Kind::Json,
        b'<' => Kind::Other,
        // `data`, `event`, `id`, `retry`, a comment, or the start of a byte order mark.
        b'd' | b'e' | b'i' | b'r' | b':' | 0xef => Kind::Events,
        _ if is_labelled => Kind::Events,
        _ => Kind::Other,
    })
}

/// What the headers call a body. Fixed words: they go into the log.
pub(super) fn label(content_type: &str) -> &'static str {
    let named = |word: &str| content_type.to_ascii_lowercase().contains(word);
    ["event-stream", "json", "html", "xml", "octet-stream", "text/plain"]
        .into_iter()
        .find(|word| named(word))
        .unwrap_or("another type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (begun, expected) in [
            ("data: {}", Some(Kind::Events)),
            (": ping", Some(Kind::Events)),
            ("\u{feff}\r\n event: x", Some(Kind::Events)),
            ("\n {\"error\":1}", Some(Kind::Json)),
            ("[{}]", Some(Kind::Json)),
            ("<html>", Some(Kind::Other)),
            ("Service unavailable", Some(Kind::Other)),
            (" \n", None),
            ("", None),
        ] {
            assert_eq!(kind(begun.as_bytes(), false), expected, "{begun}");
        }
        assert_eq!(kind(b"Service", true), Some(Kind::Events));
        assert_eq!(kind(b"{", true), Some(Kind::Json));
    }

    #[test]
    fn a_label_repeats_nothing() {
        assert_eq!(label("Text/HTML; charset=x"), "html");
        assert_eq!(label("text/event-stream, text/event-stream"), "event-stream");
        assert_eq!(label("x/my prompt"), "another type");
    }
}
