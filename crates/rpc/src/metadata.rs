//! What a call carries besides its message, and the text forms gRPC gives to time-outs and error messages.
use std::fmt::Write as _;

/// The request metadata that the services look at.
///
/// Source: etcd v3.7.1 api/v3rpc/rpctypes/metadatafields.go.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The auth token, without a leading `Bearer `; `token` goes before `authorization`.
    pub token: Option<Box<str>>,
    /// Whether the caller refuses to be served by a member that knows no leader.
    pub has_leader: bool,
    /// What the caller says its API version is.
    pub client_api_version: ClientApiVersion,
}

/// The `client-api-version` of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientApiVersion {
    /// None was sent.
    #[default]
    Unknown,
    /// As sent.
    Known(Box<str>),
    /// What was sent is not UTF-8.
    Invalid,
}

impl std::fmt::Debug for Metadata {
    /// Shows everything but the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("token", &self.token.as_ref().map(|_| "***"))
            .field("has_leader", &self.has_leader)
            .field("client_api_version", &self.client_api_version)
            .finish()
    }
}

impl Metadata {
    /// Picks the fields out of a request's header; `first` gives the first value of a lower-case name.
    pub fn collect<'a>(first: impl Fn(&str) -> Option<&'a [u8]>) -> Self {
        Self {
            token: first("token")
                .or_else(|| first("authorization"))
                .map(strip_bearer),
            has_leader: first("hasleader") == Some(b"true"),
            client_api_version: match first("client-api-version").map(std::str::from_utf8) {
                None => ClientApiVersion::Unknown,
                Some(Ok(text)) => ClientApiVersion::Known(text.into()),
                Some(Err(_)) => ClientApiVersion::Invalid,
            },
        }
    }
}

fn strip_bearer(value: &[u8]) -> Box<str> {
    let value = value.strip_prefix(b"Bearer ").unwrap_or(value);
    String::from_utf8_lossy(value).into()
}

/// The longest time-out text: eight digits and a unit.
const TIMEOUT_TEXT_MAX_BYTES: usize = 9;

/// Parses a `grpc-timeout` value into milliseconds, rounded up so that a deadline is never early.
///
/// # Errors
///
/// The text that grpc-go answers after `malformed grpc-timeout: `.
///
/// Source: grpc-go v1.82.1 internal/transport/http_util.go `decodeTimeout`.
pub(crate) fn parse_timeout_ms(value: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(value);
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if value.len() > TIMEOUT_TEXT_MAX_BYTES {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let (digits, unit) = value.split_at(value.len() - 1);
    let unit_ns: u128 = match unit {
        b"H" => 3_600_000_000_000,
        b"M" => 60_000_000_000,
        b"S" => 1_000_000_000,
        b"m" => 1_000_000,
        b"u" => 1_000,
        b"n" => 1,
        _ => {
            return Err(format!(
                "transport: timeout unit is not recognized: {text:?}"
            ));
        }
    };
    let mut count: u128 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            let digits = String::from_utf8_lossy(digits);
            return Err(format!(
                "strconv.ParseUint: parsing {digits:?}: invalid syntax"
            ));
        }
        count = count * 10 + u128::from(digit - b'0');
    }
    Ok(u64::try_from((count * unit_ns).div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// Encodes an error message for the `grpc-message` trailer.
///
/// **Shape**: printable ASCII but `%` as it is, every other byte of the UTF-8 form as `%XX` in upper-case hexadecimal.
pub(crate) fn encode_grpc_message(message: &str) -> std::borrow::Cow<'_, str> {
    let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'%';
    if message.bytes().all(plain) {
        return message.into();
    }
    let mut out = String::with_capacity(message.len() + 16);
    for byte in message.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out.into()
}

/// Decodes a `grpc-message` trailer; what is no valid escape stays as it is, what is not UTF-8 is replaced.
pub(crate) fn decode_grpc_message(encoded: &[u8]) -> String {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        let escape = (byte == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(hex_byte);
        match escape {
            Some(value) => {
                out.push(value);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let nibble = |b: &u8| {
        char::from(*b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    match digits {
        [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        let metadata = Metadata {
            token: Some("opensesame".into()),
            ..Metadata::default()
        };
        let shown = format!("{metadata:?}");
        assert!(
            !shown.contains("sesame") && shown.contains("***"),
            "{shown}"
        );
    }

    #[test]
    fn timeouts_are_parsed_as_grpc_go_does() {
        assert_eq!(parse_timeout_ms(b"5S"), Ok(5_000));
        assert_eq!(parse_timeout_ms(b"1m"), Ok(1));
        assert_eq!(parse_timeout_ms(b"1n"), Ok(1), "rounded up");
        assert_eq!(parse_timeout_ms(b"0n"), Ok(0));
        assert_eq!(parse_timeout_ms(b"1500u"), Ok(2));
        assert_eq!(parse_timeout_ms(b"99999999H"), Ok(99_999_999 * 3_600_000));
        assert_eq!(parse_timeout_ms(b"2M"), Ok(120_000));
        assert_eq!(
            parse_timeout_ms(b"S"),
            Err("transport: timeout string is too short: \"S\"".to_owned())
        );
        assert_eq!(
            parse_timeout_ms(b"123456789S"),
            Err("transport: timeout string is too long: \"123456789S\"".to_owned())
        );
        assert_eq!(
            parse_timeout_ms(b"5x"),
            Err("transport: timeout unit is not recognized: \"5x\"".to_owned())
        );
        assert_eq!(
            parse_timeout_ms(b"-1S"),
            Err("strconv.ParseUint: parsing \"-1\": invalid syntax".to_owned())
        );
    }

    #[test]
    fn messages_survive_percent_encoding() {
        for message in [
            "",
            "plain text",
            "100%",
            "tab\tnew\nline",
            "größer als ∞",
            "%41",
            "\u{7f}",
        ] {
            let encoded = encode_grpc_message(message);
            assert!(
                encoded.bytes().all(|b| (b' '..=b'~').contains(&b)),
                "{encoded}"
            );
            assert_eq!(decode_grpc_message(encoded.as_bytes()), message);
        }
        assert_eq!(encode_grpc_message("a%b\u{e9}"), "a%25b%C3%A9");
        assert_eq!(decode_grpc_message(b"50%"), "50%");
        assert_eq!(decode_grpc_message(b"%zz%4"), "%zz%4");
    }

    fn collect(fields: &[(&str, &'static [u8])]) -> Metadata {
        Metadata::collect(|name| {
            fields
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| *value)
        })
    }

    #[test]
    fn token_goes_before_authorization_whatever_the_order() {
        let both = collect(&[
            ("authorization", b"Bearer second"),
            ("token", b"Bearer first"),
        ]);
        assert_eq!(both.token.as_deref(), Some("first"));
        assert_eq!(
            collect(&[("authorization", b"plain")]).token.as_deref(),
            Some("plain")
        );
        assert_eq!(collect(&[]).token, None);
    }

    #[test]
    fn only_the_exact_value_true_requires_a_leader() {
        for (value, expected) in [
            (&b"true"[..], true),
            (b"True", false),
            (b"1", false),
            (b"", false),
        ] {
            assert_eq!(collect(&[("hasleader", value)]).has_leader, expected);
        }
    }

    #[test]
    fn client_api_version_that_is_not_text_is_remembered_as_invalid() {
        assert_eq!(collect(&[]).client_api_version, ClientApiVersion::Unknown);
        let known = collect(&[("client-api-version", b"3.7")]);
        assert_eq!(
            known.client_api_version,
            ClientApiVersion::Known("3.7".into())
        );
        let invalid = collect(&[("client-api-version", &[0xff, 0xfe])]);
        assert_eq!(invalid.client_api_version, ClientApiVersion::Invalid);
    }
}
