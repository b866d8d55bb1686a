//! Help texts, in the layout of etcdctl's.

use super::command::{Chosen, Command};
use super::commands::{GLOBAL, GROUPS};
use super::flags::{Flag, Kind};

/// What `--help` prints: the description, the usage and where the global flags are explained.
pub(crate) fn help(chosen: &Chosen, program: &str) -> String {
    let command = chosen.command();
    let description = if command.long.is_empty() {
        command.short
    } else {
        command.long
    };
    format!(
        "{}\n\n{}Use \"{program} options\" for a list of global command-line options (applies to all commands).\n",
        description.trim(),
        usage(chosen, program)
    )
}

/// How a command is called, what is below it and its own flags.
pub(crate) fn usage(chosen: &Chosen, program: &str) -> String {
    let command = chosen.command();
    let full = chosen.full_name(program);
    let above = full.strip_suffix(command.name()).unwrap_or_default();
    let mut out = String::from("Usage:\n");
    if command.action.is_some() {
        out += &format!("  {above}{} [flags]\n", command.usage);
    }
    if !command.children.is_empty() {
        out += &format!("  {full} [command]\n");
        out += &children(command);
    }
    let is_root = chosen.path.len() == 1;
    if !is_root {
        let help = format!("help for {}", command.name());
        let mut own: Vec<Row> = command
            .flags
            .iter()
            .chain(command.persistent)
            .map(Row::of)
            .collect();
        own.push(Row {
            head: "  -h, --help".to_owned(),
            name: "help",
            text: help,
        });
        out += &format!("\nFlags:\n{}", table(own));
    }
    let mut inherited = chosen.inherited();
    inherited.retain(|flag| GLOBAL.iter().all(|global| global.name != flag.name));
    if !inherited.is_empty() {
        out += &format!(
            "\nGlobal Flags:\n{}",
            table(inherited.into_iter().map(Row::of).collect())
        );
    }
    if !command.children.is_empty() {
        out +=
            &format!("\nUse \"{full} [command] --help\" for more information about a command.\n");
    }
    out
}

/// What `options` prints.
pub(crate) fn options() -> String {
    let rows = table(GLOBAL.iter().map(Row::of).collect());
    format!("The following options can be passed to any command:\n\n{rows}")
}

fn children(command: &Command) -> String {
    /// The least width of the column of names.
    const NAME_WIDTH: usize = 11;
    let width = command
        .children
        .iter()
        .map(|c| c.name().len())
        .max()
        .unwrap_or(0)
        .max(NAME_WIDTH);
    let list = |group: Option<usize>| {
        let mut children: Vec<&Command> = command
            .children
            .iter()
            .filter(|c| c.group == group)
            .collect();
        children.sort_by_key(|c| c.name());
        let lines = children
            .iter()
            .map(|c| format!("  {:width$} {}\n", c.name(), c.short));
        lines.collect::<String>()
    };
    if command.children.iter().all(|c| c.group.is_none()) {
        return format!("\nAvailable Commands:\n{}", list(None));
    }
    let groups = GROUPS.iter().enumerate();
    groups
        .map(|(i, head)| format!("\n{head}\n{}", list(Some(i))))
        .collect()
}

/// One line of a list of flags.
struct Row {
    head: String,
    name: &'static str,
    text: String,
}

impl Row {
    fn of(flag: &'static Flag) -> Row {
        let kind = match flag.kind {
            Kind::Bool => "",
            Kind::Int => " int",
            Kind::Text => " string",
            Kind::Duration => " duration",
            Kind::List => " strings",
        };
        let default = match (flag.kind, flag.default) {
            (Kind::Bool, "false") | (Kind::Int, "0") | (_, "") => String::new(),
            (Kind::Text, text) => format!(" (default {text:?})"),
            (Kind::List, text) => format!(" (default [{text}])"),
            (_, text) => format!(" (default {text})"),
        };
        let short = match flag.short {
            Some(letter) => format!("  -{}, ", char::from(letter)),
            None => "      ".to_owned(),
        };
        Row {
            head: format!("{short}--{}{kind}", flag.name),
            name: flag.name,
            text: format!("{}{default}", flag.usage),
        }
    }
}

fn table(mut rows: Vec<Row>) -> String {
    rows.sort_by_key(|row| row.name);
    let width = rows.iter().map(|row| row.head.len()).max().unwrap_or(0) + 3;
    let lines = rows
        .iter()
        .map(|row| format!("{:width$}{}\n", row.head, row.text));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::super::command::choose;
    use super::super::commands::ROOT;
    use super::*;

    fn help_of(args: &[&str]) -> String {
        let args: Vec<Vec<u8>> = args.iter().map(|a| a.as_bytes().to_vec()).collect();
        help(&choose(&ROOT, "etcdctl", &args).unwrap(), "etcdctl")
    }

    #[test]
    fn a_command_s_help_has_usage_and_flags_in_columns() {
        assert_eq!(
            help_of(&["del"]),
            "Deletes a key or the range of keys [key, range_end)

Usage:
  etcdctl del [options] <key> [range_end] [flags]

Flags:
      --from-key   take the given key and every key after it
  -h, --help       help for del
      --prefix     take every key that begins with the given one
      --prev-kv    show what was there before
      --range      delete a range without the pause before it
Use \"etcdctl options\" for a list of global command-line options (applies to all commands).
"
        );
    }

    #[test]
    fn inherited_flags_are_listed_apart() {
        assert_eq!(
            help_of(&["endpoint", "hashkv"]),
            "Prints the hash of the key history

Usage:
  etcdctl endpoint hashkv [flags]

Flags:
  -h, --help      help for hashkv
      --rev int   the last revision to hash (default: the newest)

Global Flags:
      --cluster   use the endpoints of all members
Use \"etcdctl options\" for a list of global command-line options (applies to all commands).
"
        );
    }

    #[test]
    fn a_family_s_help_lists_its_commands() {
        assert_eq!(
            help_of(&["lease"]),
            "Grants, renews, shows and revokes leases

Usage:
  etcdctl lease [command]

Available Commands:
  grant       Grants a lease
  keep-alive  Renews a lease again and again
  list        Lists all leases
  revoke      Revokes a lease
  timetolive  Shows a lease

Flags:
  -h, --help   help for lease

Use \"etcdctl lease [command] --help\" for more information about a command.
Use \"etcdctl options\" for a list of global command-line options (applies to all commands).
"
        );
    }

    #[test]
    fn options_show_types_and_defaults() {
        let text = options();
        assert!(text.contains("\n      --command-timeout duration     how long a short command may take, connecting apart (default 5s)\n"));
        assert!(text.contains("\n      --endpoints strings            where the servers listen (default [127.0.0.1:2379])\n"));
        assert!(text.contains("\n  -w, --write-out string             the output format (fields, json, protobuf, simple, table) (default \"simple\")\n"));
    }
}
