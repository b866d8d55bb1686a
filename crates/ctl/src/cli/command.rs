//! The tree of commands and how the arguments choose one.
//!
//! Source: `github.com/spf13/cobra` with prefix matching: a name may be shortened while it stays unambiguous.

use super::flags::{Flag, Kind};

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    AlarmDisarm,
    AlarmList,
    AuthDisable,
    AuthEnable,
    AuthStatus,
    Compaction,
    Defrag,
    Del,
    DowngradeCancel,
    DowngradeEnable,
    DowngradeValidate,
    EndpointHashKv,
    EndpointHealth,
    EndpointStatus,
    Get,
    Help,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseRevoke,
    LeaseTimeToLive,
    MemberAdd,
    MemberList,
    MemberPromote,
    MemberRemove,
    MemberUpdate,
    MoveLeader,
    Options,
    Put,
    RoleAdd,
    RoleDelete,
    RoleGet,
    RoleGrantPermission,
    RoleList,
    RoleRevokePermission,
    SnapshotRestore,
    SnapshotSave,
    SnapshotStatus,
    Txn,
    UserAdd,
    UserDelete,
    UserGet,
    UserGrantRole,
    UserList,
    UserPasswd,
    UserRevokeRole,
    Version,
    Watch,
}

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its name, then what help shows of its arguments.
    pub(crate) usage: &'static str,
    pub(crate) short: &'static str,
    /// Shown by help in place of `short`, unless empty.
    pub(crate) long: &'static str,
    /// The head under which help lists it, an index into [`super::commands::GROUPS`].
    pub(crate) group: Option<usize>,
    pub(crate) flags: &'static [Flag],
    /// Flags of this command and of all below it.
    pub(crate) persistent: &'static [Flag],
    pub(crate) children: &'static [Command],
    /// `None` for one that only groups others.
    pub(crate) action: Option<Action>,
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or(self.usage)
    }

    fn child(&self, word: &[u8]) -> Option<&'static Command> {
        let mut matches = self
            .children
            .iter()
            .filter(|c| c.name().as_bytes().starts_with(word));
        let exact = self.children.iter().find(|c| c.name().as_bytes() == word);
        exact.or_else(|| matches.next().filter(|_| matches.next().is_none()))
    }

    /// Names like `word` that the user may have meant.
    fn suggestions(&self, word: &str) -> Vec<&'static str> {
        let word = word.to_lowercase();
        let names = self.children.iter().map(Command::name);
        names
            .filter(|name| distance(&word, name) <= 2 || name.starts_with(&word))
            .collect()
    }
}

/// A command chosen by the arguments.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// From the root to the command itself, never empty.
    pub(crate) path: Vec<&'static Command>,
    /// The arguments without the names of the path.
    pub(crate) args: Vec<Vec<u8>>,
}

impl Chosen {
    pub(crate) fn command(&self) -> &'static Command {
        self.path.last().expect("a path begins with the root")
    }

    /// The names from the root on, with the program's own name in front.
    pub(crate) fn full_name(&self, program: &str) -> String {
        let names = self.path.iter().skip(1).map(|c| c.name());
        std::iter::once(program)
            .chain(names)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// All flags that the command understands.
    pub(crate) fn flags(&self) -> Vec<&'static Flag> {
        let persistent = self.path.iter().flat_map(|c| c.persistent);
        self.command().flags.iter().chain(persistent).collect()
    }

    /// The flags that come from the commands above.
    pub(crate) fn inherited(&self) -> Vec<&'static Flag> {
        let above = &self.path[..self.path.len() - 1];
        above.iter().flat_map(|c| c.persistent).collect()
    }
}

/// Walks from `root` down to the command that `args` name.
///
/// # Errors
/// The text for an unknown name below the root; deeper down such a word is an argument.
pub(crate) fn choose(
    root: &'static Command,
    program: &str,
    args: &[Vec<u8>],
) -> Result<Chosen, String> {
    let mut chosen = Chosen {
        path: vec![root],
        args: args.to_vec(),
    };
    while let Some(at) = first_word(&chosen) {
        let command = chosen.command();
        let Some(child) = command.child(&chosen.args[at]) else {
            if chosen.path.len() == 1 {
                return Err(unknown(command, program, &chosen.args[at]));
            }
            break;
        };
        chosen.args.remove(at);
        chosen.path.push(child);
    }
    Ok(chosen)
}

/// Where the first argument is that is neither a flag nor a flag's value.
fn first_word(chosen: &Chosen) -> Option<usize> {
    let flags = chosen.flags();
    let takes_value = |arg: &[u8]| match arg {
        [b'-', b'-', name @ ..] => {
            let flag = flags.iter().find(|f| f.name.as_bytes() == name);
            !name.contains(&b'=') && flag.is_none_or(|f| f.kind != Kind::Bool)
        }
        [b'-', letter] => {
            let flag = flags.iter().find(|f| f.short == Some(*letter));
            flag.is_none_or(|f| f.kind != Kind::Bool)
        }
        _ => false,
    };
    let mut at = 0;
    while let Some(arg) = chosen.args.get(at) {
        match arg.as_slice() {
            b"--" => return None,
            [b'-', _, ..] if matches!(arg.as_slice(), b"-h" | b"--help") => at += 1,
            [b'-', _, ..] => at += 1 + usize::from(takes_value(arg)),
            [] => at += 1,
            _ => return Some(at),
        }
    }
    None
}

fn unknown(root: &Command, program: &str, word: &[u8]) -> String {
    let word = String::from_utf8_lossy(word);
    let mut text = format!("unknown command {word:?} for {program:?}");
    let suggestions = root.suggestions(&word);
    if !suggestions.is_empty() {
        text += "\n\nDid you mean this?\n";
        for name in suggestions {
            text += &format!("\t{name}\n");
        }
    }
    text
}

/// The Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::commands::ROOT;
    use super::*;

    fn chosen(args: &[&str]) -> Result<Chosen, String> {
        let args: Vec<Vec<u8>> = args.iter().map(|a| a.as_bytes().to_vec()).collect();
        choose(&ROOT, "etcdctl", &args)
    }

    fn action(args: &[&str]) -> Option<Action> {
        chosen(args).unwrap().command().action
    }

    #[test]
    fn names_may_be_shortened_while_they_are_unambiguous() {
        assert_eq!(action(&["g", "k"]), Some(Action::Get));
        assert_eq!(action(&["le", "ti", "1"]), Some(Action::LeaseTimeToLive));
        assert_eq!(action(&["lease", "l"]), Some(Action::LeaseList));
        assert_eq!(action(&["en", "hea"]), Some(Action::EndpointHealth));
        assert_eq!(action(&["lease", "bogus"]), None);
        assert!(chosen(&["de", "k"]).is_err());
    }

    #[test]
    fn flags_before_the_name_are_stepped_over() {
        let found =
            chosen(&["--endpoints", "get", "--hex", "-w", "json", "put", "a", "b"]).unwrap();
        assert_eq!(found.command().action, Some(Action::Put));
        assert_eq!(found.args.len(), 7);
        assert_eq!(found.full_name("etcdctl"), "etcdctl put");
    }

    #[test]
    fn an_unknown_name_brings_suggestions() {
        assert_eq!(
            chosen(&["geet"]).unwrap_err(),
            "unknown command \"geet\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n"
        );
        assert_eq!(
            chosen(&["bogus"]).unwrap_err(),
            "unknown command \"bogus\" for \"etcdctl\""
        );
    }
}
