//! URLs of members and listeners.

use std::fmt;
use std::net::IpAddr;

/// How a URL is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A socket file.
    Unix,
    /// TLS over a socket file.
    Unixs,
}

/// A URL as etcd accepts it for listeners and members.
///
/// Differs from etcd: user names, queries and fragments are refused; etcd carries them along without a meaning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    /// As printed and as hashed into member ids; sorts first.
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Url {
    /// Parses one URL.
    ///
    /// # Errors
    ///
    /// A message in the words of etcd. Source: etcd v3.7.1 client/pkg/types/urls.go `NewURLs`.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let bad_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
        let (scheme_text, rest) = text.split_once(':').ok_or_else(bad_scheme)?;
        let scheme = match scheme_text.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(bad_scheme()),
        };
        if let Some(bad) = rest.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("parse {text:?}: invalid character {bad:?} in URL"));
        }
        let canonical = format!("{}:{rest}", scheme_text.to_ascii_lowercase());
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() {
                return Err(format!("URL names no socket: {text}"));
            }
            return Ok(Url {
                scheme,
                host: path.to_owned(),
                port: 0,
                text: canonical,
            });
        }
        let authority = rest.strip_prefix("//").unwrap_or("");
        if let Some(at) = authority.find(['/', '?', '#', '@']) {
            let part = match authority.as_bytes()[at] {
                b'/' => "path",
                b'?' => "query",
                b'#' => "fragment",
                _ => "user name",
            };
            return Err(format!("URL must not contain a {part}: {text}"));
        }
        let (host, port) = split_host_port(authority)
            .ok_or_else(|| format!("URL address does not have the form \"host:port\": {text}"))?;
        let port_number = if port.is_empty() {
            Some(0)
        } else {
            port.parse().ok()
        };
        let port = port_number
            .filter(|_| !port.starts_with('+'))
            .ok_or_else(|| {
                format!(
                    "parse {text:?}: invalid port {:?} after host",
                    format!(":{port}")
                )
            })?;
        Ok(Url {
            scheme,
            host: host.to_owned(),
            port,
            text: canonical,
        })
    }

    /// Parses a comma-separated list and sorts it.
    ///
    /// # Errors
    ///
    /// The first URL that does not parse.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
        let mut urls = text
            .split(',')
            .map(Url::parse)
            .collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// Returns the scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host without brackets; for socket files, the path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; 0 for socket files and for "any free port".
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether this is reached through a socket file.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// Returns the text, as printed and as hashed into member ids.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the same URL with another host.
    pub(crate) fn with_host(&self, host: &str, port: u16) -> Result<Url, String> {
        let scheme = self.text.split(':').next().unwrap_or("http");
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        Url::parse(&format!("{scheme}://{host}:{port}"))
    }

    /// Checks that a listener can be bound: the host is `localhost` or an IP address.
    pub(crate) fn check_bindable(&self) -> Result<(), String> {
        if self.is_unix() || self.host == "localhost" || self.host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(format!("expected IP in URL for binding ({self})"))
    }

    /// Checks that others can be told this URL: the host is not empty.
    pub(crate) fn check_advertisable(&self) -> Result<(), String> {
        if self.is_unix() || !self.host.is_empty() {
            return Ok(());
        }
        Err(format!("unexpected empty host ({self})"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits at the last colon; the host may be bracketed, and must be when it contains colons.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        return (!inner.contains(['[', ']'])).then_some((inner, port));
    }
    (!host.contains([':', '[', ']']) && !port.contains(']')).then_some((host, port))
}

/// Joins the texts of a list with commas.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_parse_or_are_refused_as_by_etcd() {
        for (text, host, port) in [
            ("http://localhost:2379", "localhost", 2379),
            (" HTTP://127.0.0.1:0 ", "127.0.0.1", 0),
            ("https://[::1]:2380", "::1", 2380),
            ("http://:2379", "", 2379),
            ("http://a.b:", "a.b", 0),
            ("unix://localhost:20000", "localhost:20000", 0),
            ("unix:///run/x.sock", "/run/x.sock", 0),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!(Url::parse(url.as_str()), Ok(url), "and back");
        }
        for (text, needle) in [
            ("x", "URL scheme must be http, https, unix, or unixs: x"),
            ("", "URL scheme must be"),
            ("ftp://a:1", "URL scheme must be"),
            ("localhost:2379", "URL scheme must be"),
            (
                "http://foo",
                "URL address does not have the form \"host:port\": http://foo",
            ),
            ("http:foo:1", "does not have the form"),
            ("http://::1:2379", "does not have the form"),
            ("http://[::1]", "does not have the form"),
            ("http://a:1/", "URL must not contain a path: http://a:1/"),
            ("http://a:1?x", "query"),
            ("http://u@a:1", "user name"),
            ("http://a:b", "invalid port"),
            ("http://a:+1", "invalid port"),
            ("http://a:65536", "invalid port"),
            ("http://a\n:1", "invalid character"),
            ("unix://", "names no socket"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(needle), "{text:?}: {error}");
        }
    }

    #[test]
    fn lists_are_sorted_and_have_no_duplicates() {
        let urls = Url::parse_list("http://b:1,http://a:2, http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:2,http://b:1");
    }

    #[test]
    fn listeners_take_addresses_and_localhost_only() {
        for (text, bindable, advertisable) in [
            ("http://localhost:1", true, true),
            ("http://0.0.0.0:1", true, true),
            ("http://[::]:1", true, true),
            ("http://example.com:1", false, true),
            ("http://:1", false, false),
            ("unix://a", true, true),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(url.check_bindable().is_ok(), bindable, "{text}");
            assert_eq!(url.check_advertisable().is_ok(), advertisable, "{text}");
        }
    }
}
