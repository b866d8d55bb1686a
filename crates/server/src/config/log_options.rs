//! Where and how to log, from the flags. Source: etcd v3.7.1 server/embed/config_logging.go `setupLogging`.

use super::error::Error;
use super::flag_set::FlagSet;
use crate::log::{Format, Level, Options, Output};

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
    if flags.switch("enable-log-rotation") {
        check_rotation(outputs, flags.text("log-rotation-config-json"))?;
    }
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
        outputs: read_outputs(outputs)?,
    })
}

fn read_outputs(texts: &[String]) -> Result<Vec<Output>, Error> {
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
            path => Output::File(path.into()),
        });
    }
    outputs.sort();
    outputs.dedup();
    Ok(outputs)
}

fn check_rotation(outputs: &[String], settings: &str) -> Result<(), Error> {
    let files = outputs
        .iter()
        .filter(|output| !matches!(output.as_str(), "default" | "stderr" | "stdout"))
        .count();
    if files > 1 || (files == 0 && outputs.len() == 1) {
        return Err(Error::Invalid(
            "--log-outputs requires a single file path when --log-rotate-config-json is defined"
                .to_owned(),
        ));
    }
    match serde_json::from_str::<serde_json::Value>(settings) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        Ok(_) => Err(Error::Invalid(
            "invalid log rotation config: not an object".to_owned(),
        )),
        Err(error) => Err(Error::Invalid(format!(
            "improperly formatted log rotation config: {error}"
        ))),
    }
}
