//! Addresses of members, and which one of several is tried.
use parking_lot::Mutex;

use crate::Error;

/// Where one member is reached. `Display` gives the URL as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerUrl {
    text: String,
    /// `host:port`, as dialled and as sent in `Host`.
    authority: String,
}

impl PeerUrl {
    /// Parses `http://host:port`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what| Error::Url {
            url: text.to_owned(),
            what,
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("has no scheme"));
        };
        match scheme {
            "http" => {}
            "https" => return Err(wrong("wants TLS, which is not offered between members yet")),
            _ => return Err(wrong("has a scheme that is not http")),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@', ' ']) {
            return Err(wrong("is more than scheme, host and port"));
        }
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !has_port || authority.parse::<http::uri::Authority>().is_err() {
            return Err(wrong("has no host and port"));
        }
        Ok(Self {
            text: text.to_owned(),
            authority: authority.to_owned(),
        })
    }

    /// Parses several; there must be one at least.
    pub(crate) fn parse_all(texts: &[String]) -> Result<Vec<Self>, Error> {
        if texts.is_empty() {
            return Err(Error::Url {
                url: String::new(),
                what: "is missing",
            });
        }
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

impl std::fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Gives one of a peer's URLs, and another after it failed.
#[derive(Debug)]
pub(crate) struct Picker(Mutex<Urls>);

#[derive(Debug)]
struct Urls {
    /// **Invariant:** not empty.
    all: Vec<PeerUrl>,
    /// **Invariant:** below the number of URLs.
    picked: usize,
}

impl Picker {
    /// # Panics
    ///
    /// If there is no URL.
    pub(crate) fn new(urls: Vec<PeerUrl>) -> Self {
        assert!(!urls.is_empty(), "a peer has at least one URL");
        Self(Mutex::new(Urls {
            all: urls,
            picked: 0,
        }))
    }

    pub(crate) fn pick(&self) -> PeerUrl {
        let urls = self.0.lock();
        urls.all[urls.picked].clone()
    }

    /// Returns all URLs; there is one at least.
    pub(crate) fn all(&self) -> Vec<PeerUrl> {
        self.0.lock().all.clone()
    }

    /// Moves on if the URL that failed is still the one picked.
    pub(crate) fn failed(&self, url: &PeerUrl) {
        let mut urls = self.0.lock();
        if urls.all[urls.picked] == *url {
            urls.picked = (urls.picked + 1) % urls.all.len();
        }
    }

    /// # Panics
    ///
    /// If there is no URL.
    pub(crate) fn update(&self, all: Vec<PeerUrl>) {
        assert!(!all.is_empty(), "a peer has at least one URL");
        *self.0.lock() = Urls { all, picked: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_scheme_host_and_port() {
        for good in [
            "http://127.0.0.1:2380",
            "http://[::1]:2380",
            "http://etcd-0.svc:1/",
        ] {
            assert!(PeerUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "http",
            "http://",
            "http://host",
            "http://:2380",
            "http://h:99999",
            "https://h:1",
            "unix://a:1",
            "http://u@h:1",
            "http://h:1/path",
            "http://h h:1",
        ] {
            assert!(PeerUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn next_url_is_picked_only_after_the_picked_one_failed() {
        let urls = ["http://a:1", "http://b:1"].map(|text| PeerUrl::parse(text).unwrap());
        let picker = Picker::new(urls.to_vec());
        picker.failed(&urls[1]);
        assert_eq!(picker.pick(), urls[0]);
        picker.failed(&urls[0]);
        assert_eq!(picker.pick(), urls[1]);
        picker.failed(&urls[1]);
        assert_eq!(picker.pick(), urls[0]);
    }
}
