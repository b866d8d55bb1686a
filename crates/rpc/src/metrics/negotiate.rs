//! Which format a scrape asks for.

/// How names that are no plain words would be written; ours all are, so that the text is the same.
const ESCAPINGS: [(&str, &str); 4] = [
    (
        "allow-utf-8",
        "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
    ),
    (
        "underscores",
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
    ),
    (
        "dots",
        "text/plain; version=0.0.4; charset=utf-8; escaping=dots",
    ),
    (
        "values",
        "text/plain; version=0.0.4; charset=utf-8; escaping=values",
    ),
];
/// The escaping of those who ask for none.
const DEFAULT_ESCAPING: usize = 1;
/// Clauses that are looked at.
const CLAUSES_MAX: usize = 32;

/// Returns the content type of the answer to a request with this `Accept` field.
///
/// etcd does not offer OpenMetrics, and neither is it offered here. Source: prometheus/common expfmt `Negotiate`.
///
/// Differs from etcd: who asks for Protobuf gets the text too, as every scraper takes.
pub(crate) fn content_type(accept: &str) -> &'static str {
    let mut clauses: Vec<Clause<'_>> = accept
        .split(',')
        .take(CLAUSES_MAX)
        .map(Clause::parse)
        .collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    let mut escaping = DEFAULT_ESCAPING;
    for clause in clauses {
        if let Some(known) = clause
            .escaping
            .and_then(|name| ESCAPINGS.iter().position(|(known, _)| *known == name))
        {
            escaping = known;
        }
        let is_text = clause.kind == "text/plain";
        if is_text && matches!(clause.version, None | Some("0.0.4" | "")) {
            break;
        }
    }
    ESCAPINGS[escaping].1
}

struct Clause<'a> {
    kind: &'a str,
    quality: f64,
    version: Option<&'a str>,
    escaping: Option<&'a str>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or("");
        let mut clause = Self {
            kind,
            quality: 1.0,
            version: None,
            escaping: None,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(1.0),
                "version" => clause.version = Some(value.trim()),
                "escaping" => clause.escaping = Some(value.trim()),
                _ => {}
            }
        }
        clause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapes_get_the_text_whatever_they_ask_for_with_the_escaping_they_ask_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, escaping) in [
            ("", "underscores"),
            ("*/*", "underscores"),
            ("text/html", "underscores"),
            ("text/plain;version=0.0.4", "underscores"),
            ("application/openmetrics-text;version=1.0.0", "underscores"),
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8",
                "allow-utf-8",
            ),
            (prometheus, "allow-utf-8"),
            ("text/plain;q=0.9,a/b;escaping=dots;q=0.8", "underscores"),
            ("text/plain;q=0.8,a/b;escaping=dots;q=0.9", "dots"),
            ("a/b;escaping=nonsense;q=x", "underscores"),
        ] {
            let expected = format!("text/plain; version=0.0.4; charset=utf-8; escaping={escaping}");
            assert_eq!(content_type(accept), expected, "{accept}");
        }
    }
}
