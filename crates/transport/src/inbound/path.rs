//! Which path a request means: Go's multiplexer sends clients from unclean paths to clean ones.
use http::Uri;

/// Paths that lead to the same with a slash behind them.
const WITH_SLASH: [&str; 2] = ["/members/promote", "/raft/stream"];

/// What a request is to be answered from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// A path, decoded.
    Path(String),
    /// Nothing: the client is to ask there.
    Elsewhere(String),
}

/// Tells what is meant by a URI.
///
/// Source: Go 1.26 net/http server.go `ServeMux.findHandler`, `cleanPath`, `Redirect`. Differs from it: no path matches of which a
/// segment holds an encoded slash.
pub(super) fn meant(uri: &Uri) -> Meant {
    let path = uri.path();
    let query = uri.query().filter(|query| !query.is_empty());
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let cleaned = clean(path);
    if cleaned != path {
        return Meant::Elsewhere(encode(&cleaned) + &query);
    }
    match decode(path) {
        Some(decoded) if WITH_SLASH.contains(&&decoded[..]) => {
            Meant::Elsewhere(format!("{decoded}/{query}"))
        }
        Some(decoded) => Meant::Path(decoded),
        None => Meant::Path(path.to_owned()),
    }
}

/// Removes what names nothing: empty segments, `.`, and `..` with what is before it.
fn clean(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut cleaned = format!("/{}", segments.join("/"));
    if path.ends_with('/') && cleaned != "/" {
        cleaned.push('/');
    }
    cleaned
}

/// Writes a path into a URL; what is encoded in it already is so once more, as Go does it.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
        if is_plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Reads a path; `None` when it is no text, or when a slash in it divides nothing.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        let byte = u8::try_from(high * 16 + low).ok()?;
        if byte == b'/' {
            return None;
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unclean_paths_are_cleaned_as_by_etcd() {
        let meant = |uri: &str| meant(&uri.parse().unwrap());
        let path = |path: &str| Meant::Path(path.to_owned());
        let elsewhere = |path: &str| Meant::Elsewhere(path.to_owned());
        // As etcd 3.7.1 answers.
        for (uri, location) in [
            ("//members", "/members"),
            ("/./members", "/members"),
            ("/a/../members?x=1&y", "/members?x=1&y"),
            ("//", "/"),
            ("/nothing/..", "/"),
            ("/nothing/../", "/"),
            ("/raft/stream", "/raft/stream/"),
            ("/raft/stream//message/2", "/raft/stream/message/2"),
            ("/members/promote?a=b", "/members/promote/?a=b"),
            ("/members/promote/1/../2", "/members/promote/2"),
            ("/%22%3Cx%3E//y&z", "/%2522%253Cx%253E/y&z"),
            ("http://h//members", "/members"),
            ("/members//?", "/members/"),
        ] {
            assert_eq!(meant(uri), elsewhere(location), "{uri}");
        }
        for (uri, clean) in [
            ("/", "/"),
            ("/members", "/members"),
            ("/members/", "/members/"),
            ("/%6dembers", "/members"),
            ("/members%2f", "/members%2f"),
            ("/a%2F..%2fmembers", "/a%2F..%2fmembers"),
            ("/%zz", "/%zz"),
            ("/%", "/%"),
            ("/%ff", "/%ff"),
            ("/%2e%2e/members", "/../members"),
        ] {
            assert_eq!(meant(uri), path(clean), "{uri}");
        }
    }
}
