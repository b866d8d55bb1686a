//! The configuration file.
//!
//! Differs from etcd: an unknown key of the file is ignored there and here, but messages about values name the key
//! and the type wanted in our own words.

use serde_json::Value as Json;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::error::Error;
use super::feature_gates::FeatureGates;
use super::flag::{Flag, Kind, Value, Yaml, sorted};
use super::flag_set::FlagSet;
use super::table;
use super::url::Url;

/// Largest configuration file that is read.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Puts the values of a file into a set of defaults. Source: etcd v3.7.1 server/embed/config.go `configFromFile`.
///
/// # Errors
///
/// Text that is not YAML, and values that are not of their flag's kind.
pub(crate) fn read(text: &str, flags: &mut FlagSet) -> Result<(), Error> {
    let document = parse(text)?;
    for section in [
        "client-transport-security",
        "peer-transport-security",
        "socket-options",
        "discovery-config",
    ] {
        match member(&document, section) {
            None | Some(Json::Object(_)) => {}
            Some(Json::Null) if section != "peer-transport-security" => {}
            Some(_) => return Err(Error::Invalid(format!("invalid {section}"))),
        }
    }
    for flag in table::SECTIONS.iter().flat_map(|section| section.flags) {
        let path = match flag.yaml {
            Yaml::Absent => continue,
            Yaml::Same | Yaml::CommaString => flag.name,
            Yaml::At(path) => path,
        };
        if let Some(json) = lookup(&document, path) {
            let value = value_of(flag, path, json, flags.value(flag.name))?;
            flags.put(flag.name, value);
        }
    }
    settle(flags);
    Ok(())
}

/// Applies the rules between keys that hold in files alone.
fn settle(flags: &mut FlagSet) {
    let discovers =
        !flags.text("discovery-srv").is_empty() || !flags.list("discovery-endpoints").is_empty();
    if discovers && flags.is_default("initial-cluster") {
        flags.put("initial-cluster", Value::Text(String::new()));
    }
    if flags.text("initial-cluster-state").is_empty() {
        flags.put("initial-cluster-state", Value::Text("new".to_owned()));
    }
    if flags.uint("self-signed-cert-validity") == 0 {
        flags.put("self-signed-cert-validity", Value::Uint(1));
    }
}

fn parse(text: &str) -> Result<Json, Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Json::Null);
    }
    let document: Json = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Error::Invalid(format!("error converting YAML to JSON: yaml: {error}")))?;
    match document {
        Json::Null | Json::Object(_) => Ok(document),
        other => Err(Error::Invalid(format!(
            "error unmarshaling JSON: the configuration file holds {}, not a mapping",
            kind_of(&other)
        ))),
    }
}

/// Finds a key whatever the case of its letters, as Go's decoder does; an exact match wins.
fn member<'a>(object: &'a Json, key: &str) -> Option<&'a Json> {
    let object = object.as_object()?;
    object.get(key).or_else(|| {
        object
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))
            .map(|(_, v)| v)
    })
}

fn lookup<'a>(document: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(document, member)
}

fn value_of(flag: &Flag, path: &str, json: &Json, before: &Value) -> Result<Value, Error> {
    if json.is_null() {
        return Ok(before.clone());
    }
    let wrong = |wanted: &str| {
        Error::Invalid(format!(
            "error unmarshaling JSON: {path} must be {wanted}, not {}",
            kind_of(json)
        ))
    };
    let text = || json.as_str().ok_or_else(|| wrong("a string"));
    Ok(match flag.kind {
        Kind::Text | Kind::OneOf(_) => Value::Text(text()?.to_owned()),
        // The value has no effect, whatever it is.
        Kind::ManyOf(_) => text().map(|_| before.clone())?,
        Kind::Bool => Value::Bool(json.as_bool().ok_or_else(|| wrong("true or false"))?),
        Kind::Uint => Value::Uint(
            whole(json)
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| wrong("a whole number of 0 or more"))?,
        ),
        Kind::Uint32 => Value::Uint(
            whole(json)
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| wrong("a whole number of 32 bits"))?
                .into(),
        ),
        Kind::Int => Value::Int(
            whole(json)
                .and_then(|n| i64::try_from(n).ok())
                .ok_or_else(|| wrong("a whole number"))?,
        ),
        Kind::Duration => Value::Duration(
            whole(json)
                .and_then(|n| i64::try_from(n).ok())
                .ok_or_else(|| wrong("a whole number of nanoseconds"))?,
        ),
        Kind::Urls => {
            let text = text()?;
            if text.is_empty() {
                return Ok(before.clone());
            }
            Value::Urls(Url::parse_list(text).map_err(|error| setting_up(path, &error))?)
        }
        Kind::Origins => comma_string(flag, path, text()?, before)?,
        Kind::List | Kind::Set if matches!(flag.yaml, Yaml::CommaString) => {
            comma_string(flag, path, text()?, before)?
        }
        Kind::List => Value::List(texts(json).ok_or_else(|| wrong("a list of strings"))?),
        Kind::Set => Value::List(sorted(
            texts(json).ok_or_else(|| wrong("a list of strings"))?,
        )),
        Kind::Gates => {
            let mut gates = FeatureGates::default();
            gates.apply(text()?).map_err(Error::Invalid)?;
            Value::Gates(gates)
        }
        Kind::Legacy => before.clone(),
    })
}

fn comma_string(flag: &Flag, path: &str, text: &str, before: &Value) -> Result<Value, Error> {
    if text.is_empty() {
        return Ok(before.clone());
    }
    flag.kind
        .parse(text, Some(before))
        .map_err(|error| setting_up(path, &error))
}

fn setting_up(path: &str, error: &str) -> Error {
    Error::Invalid(format!("unexpected error setting up {path}: {error}"))
}

fn texts(json: &Json) -> Option<Vec<String>> {
    json.as_array()?
        .iter()
        .map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Returns a number without a fraction; `100.0` and `1e3` count, as they do in etcd.
fn whole(json: &Json) -> Option<i128> {
    /// Largest magnitude below which every whole number is a float.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let number = json.as_number()?;
    if let Some(number) = number.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = number.as_u64() {
        return Some(number.into());
    }
    let number = number
        .as_f64()
        .filter(|n| n.fract() == 0.0 && n.abs() <= EXACT_MAX)?;
    format!("{number:.0}").parse().ok()
}

fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<FlagSet, String> {
        let mut flags = FlagSet::new();
        read(text, &mut flags)
            .map(|()| flags)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_read_as_etcd_reads_them() {
        let flags = read_text(
            "heartbeat-interval: 0x10\nELECTION-timeout: 1e3\nmax-wals: 010\nsnapshot-count: 7\nsnapshot-count: 8\n\
             grpc-keepalive-min-time: 600000000000\nlog-outputs: [stderr, a.log, stderr]\nname: 'x'\n\
             listen-client-urls: http://127.0.0.1:2, http://127.0.0.1:1\nunknown: {a: [1]}\ndata-dir:\n\
             client-transport-security:\n  cert-file:\n  client-cert-auth: false\nsocket-options: {reuse-port: on}\n\
             feature-gates: LeaseCheckpoint=true\ncors: ''\nmax-txn-ops: 200.0\n",
        )
        .unwrap();
        assert_eq!(flags.uint("heartbeat-interval"), 16);
        assert_eq!(flags.uint("election-timeout"), 1000);
        assert_eq!(flags.uint("max-wals"), 8);
        assert_eq!(flags.uint("snapshot-count"), 8);
        assert_eq!(flags.uint("max-txn-ops"), 200);
        assert_eq!(flags.nanos("grpc-keepalive-min-time"), 600_000_000_000);
        assert_eq!(flags.list("log-outputs"), ["a.log", "stderr"]);
        assert_eq!(flags.urls("listen-client-urls")[0].port(), 1);
        assert!(flags.switch("socket-reuse-port"));
        assert!(flags.is_default("cors") && flags.is_default("data-dir"));
    }

    #[test]
    fn empty_files_mean_the_defaults() {
        for text in ["", "\n", "# only a comment\n", "---\n", "{}", "null\n"] {
            let flags = read_text(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert!(
                table::all().all(|flag| flags.is_default(flag.name)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn values_of_a_wrong_type_are_refused_by_key() {
        for (text, needle) in [
            (
                "heartbeat-interval: '5'",
                "heartbeat-interval must be a whole number of 0 or more, not a string",
            ),
            ("heartbeat-interval: -5", "heartbeat-interval must be"),
            ("heartbeat-interval: 5.5", "heartbeat-interval must be"),
            ("heartbeat-interval: true", "not a boolean"),
            ("name: 5", "name must be a string, not a number"),
            ("name: yes", "name must be a string, not a boolean"),
            (
                "grpc-keepalive-min-time: 5s",
                "grpc-keepalive-min-time must be a whole number of nanoseconds",
            ),
            ("pre-vote: 'true'", "pre-vote must be true or false"),
            (
                "log-outputs: stderr",
                "log-outputs must be a list of strings",
            ),
            (
                "cipher-suites: [1]",
                "cipher-suites must be a list of strings",
            ),
            ("max-concurrent-streams: 4294967296", "32 bits"),
            (
                "auto-compaction-retention: 5",
                "auto-compaction-retention must be a string",
            ),
            (
                "listen-client-urls: foo",
                "unexpected error setting up listen-client-urls: URL scheme must be",
            ),
            ("cors: x", "unexpected error setting up cors: URL scheme"),
            ("feature-gates: X", "missing bool value for X"),
            (
                "peer-transport-security: 3",
                "invalid peer-transport-security",
            ),
            (
                "peer-transport-security:",
                "invalid peer-transport-security",
            ),
            (
                "client-transport-security: [a]",
                "invalid client-transport-security",
            ),
            ("- a", "the configuration file holds a list, not a mapping"),
            ("a: [", "error converting YAML to JSON: yaml:"),
            ("a: b: c", "error converting YAML to JSON: yaml:"),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(needle), "{text:?}: {error}");
        }
    }
}
