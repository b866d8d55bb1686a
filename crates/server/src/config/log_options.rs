//! Where and how to log, from the flags. Source: etcd v3.7.1 server/embed/config_logging.go `setupLogging`.

use super::error::Error;
use super::flag_set::FlagSet;
use crate::log::{Format, Level, Options, Output, Rotation};

/// Reads the flags of the log.
///
/// # Errors
///
/// The first broken rule, in etcd's words.
pub(crate) fn read(flags: &FlagSet) -> Result<Options, Error> {
    let invalid = |message: String| Err(Error::Invalid(message));
    match flags.text("logger") {
        "zap" => {}
        "capnslog" => return invalid("--logger=capnslog is removed in v3.5".to_owned()),
        other => return invalid(format!("unknown logger option {other:?}")),
    }
    let outputs = flags.list("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return invalid("multi logoutput for \"default\" is not supported yet".to_owned());
    }
    let rotation = if flags.switch("enable-log-rotation") {
        Some(read_rotation(
            outputs,
            flags.text("log-rotation-config-json"),
        )?)
    } else {
        None
    };
    let text = flags.text("log-level");
    let Some(level) = Level::parse(text) else {
        return invalid(format!("unrecognized level: {text:?}"));
    };
    let format = match flags.text("log-format") {
        "json" | "" => Format::Json,
        "console" => Format::Console,
        other => {
            return invalid(format!(
                "unknown log format: {other}, supported values json, console"
            ));
        }
    };
    Ok(Options {
        level,
        format,
        outputs: read_outputs(outputs, rotation.as_ref())?,
    })
}

fn read_outputs(texts: &[String], rotation: Option<&Rotation>) -> Result<Vec<Output>, Error> {
    if texts.is_empty() {
        return Ok(vec![Output::Stderr]);
    }
    if texts.iter().any(|text| text == "/dev/null") {
        return Ok(Vec::new());
    }
    let mut outputs = Vec::new();
    for text in texts {
        outputs.push(match text.as_str() {
            "default" | "stderr" => Output::Stderr,
            "stdout" => Output::Stdout,
            "" => {
                return Err(Error::Invalid(
                    "--log-outputs names a file without a name".to_owned(),
                ));
            }
            path => match rotation {
                Some(rotation) => Output::Rotating(path.into(), rotation.clone()),
                None => Output::File(path.into()),
            },
        });
    }
    outputs.sort();
    outputs.dedup();
    Ok(outputs)
}

/// The settings of rotation as the flag has them. Source: lumberjack v2, `Logger`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct RotationSettings {
    /// Units: MiB; 0 and less mean 100.
    maxsize: i64,
    /// Units: days.
    maxage: i64,
    maxbackups: i64,
    localtime: bool,
    compress: bool,
}

const DEFAULT_MAX_SIZE_MIB: u64 = 100;

fn read_rotation(outputs: &[String], settings: &str) -> Result<Rotation, Error> {
    let invalid = |message: String| Err(Error::Invalid(message));
    let files = outputs
        .iter()
        .filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout"))
        .count();
    if files > 1 || (files == 0 && outputs.len() == 1) {
        return invalid(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined"
                .to_owned(),
        );
    }
    let settings: RotationSettings = match serde_json::from_str(settings) {
        Ok(settings) => settings,
        Err(error) if error.is_data() => {
            return invalid(format!("invalid log rotation config: {error}"));
        }
        Err(error) => {
            return invalid(format!("improperly formatted log rotation config: {error}"));
        }
    };
    for (name, is_set) in [
        ("localtime", settings.localtime),
        ("compress", settings.compress),
    ] {
        if is_set {
            return invalid(format!(
                "--log-rotation-config-json has {name:?} set, which is not built yet"
            ));
        }
    }
    let positive = |value: i64| u64::try_from(value).unwrap_or(0);
    let max_size_mib = match positive(settings.maxsize) {
        0 => DEFAULT_MAX_SIZE_MIB,
        size => size,
    };
    Ok(Rotation {
        max_bytes: max_size_mib.saturating_mul(1 << 20),
        max_backups: usize::try_from(positive(settings.maxbackups)).unwrap_or(usize::MAX),
        max_age_days: positive(settings.maxage),
    })
}
