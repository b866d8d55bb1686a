//! Every command with its flags and help.

use super::command::{Action, Command};
use super::flags::{Flag, Kind};

/// The heads under which help lists the commands.
pub(crate) const GROUPS: [&str; 4] = [
    "Key-value commands",
    "Cluster maintenance commands",
    "Authentication commands",
    "Utility commands",
];
const KV: Option<usize> = Some(0);
const CLUSTER: Option<usize> = Some(1);
const AUTH: Option<usize> = Some(2);
const UTILITY: Option<usize> = Some(3);

const NOTHING: Command = Command {
    usage: "",
    short: "",
    long: "",
    group: None,
    flags: &[],
    persistent: &[],
    children: &[],
    action: None,
};

const fn leaf(
    usage: &'static str,
    short: &'static str,
    flags: &'static [Flag],
    action: Action,
) -> Command {
    Command {
        usage,
        short,
        flags,
        action: Some(action),
        ..NOTHING
    }
}

const fn top(
    group: Option<usize>,
    usage: &'static str,
    short: &'static str,
    flags: &'static [Flag],
    action: Action,
) -> Command {
    Command {
        group,
        ..leaf(usage, short, flags, action)
    }
}

const fn family(
    group: Option<usize>,
    usage: &'static str,
    short: &'static str,
    children: &'static [Command],
) -> Command {
    Command {
        usage,
        short,
        group,
        children,
        ..NOTHING
    }
}

/// Flags that every command takes.
pub(crate) const GLOBAL: [Flag; 21] = [
    Flag::text(
        "auth-jwt-token",
        "a JWT to authenticate with, in place of --user and --password",
    ),
    Flag::text(
        "cacert",
        "the CA bundle that servers' certificates are verified with",
    ),
    Flag::text("cert", "the TLS certificate file of this client"),
    Flag::new(
        "command-timeout",
        Kind::Duration,
        "5s",
        "how long a short command may take, connecting apart",
    ),
    Flag::boolean("debug", "print the settings in force and more logs"),
    Flag::new(
        "dial-timeout",
        Kind::Duration,
        "2s",
        "how long connecting may take",
    ),
    Flag::text(
        "discovery-srv",
        "the domain whose SRV records name the endpoints",
    )
    .short(b'd'),
    Flag::text(
        "discovery-srv-name",
        "the service name suffix of those records",
    ),
    Flag::new(
        "endpoints",
        Kind::List,
        "127.0.0.1:2379",
        "where the servers listen",
    ),
    Flag::boolean("hex", "print byte strings in hexadecimal"),
    Flag::new(
        "insecure-discovery",
        Kind::Bool,
        "true",
        "accept SRV records of endpoints without TLS",
    ),
    Flag::boolean(
        "insecure-skip-tls-verify",
        "do not verify servers' certificates (for tests only)",
    ),
    Flag::new(
        "insecure-transport",
        Kind::Bool,
        "true",
        "do without TLS where nothing asks for it",
    ),
    Flag::new(
        "keepalive-time",
        Kind::Duration,
        "2s",
        "the time between keep-alive pings",
    ),
    Flag::new(
        "keepalive-timeout",
        Kind::Duration,
        "6s",
        "how long the answer to a ping may take",
    ),
    Flag::text("key", "the TLS key file of this client"),
    Flag::int(
        "max-recv-bytes",
        "the largest response accepted in bytes (0 for 2147483647)",
    ),
    Flag::int(
        "max-request-bytes",
        "the largest request sent in bytes (0 for 2 MiB)",
    ),
    Flag::text("password", "the password, --user is then only the name"),
    Flag::text(
        "user",
        "username[:password] to authenticate with, asked for when there is no password",
    ),
    Flag::new(
        "write-out",
        Kind::Text,
        "simple",
        "the output format (fields, json, protobuf, simple, table)",
    )
    .short(b'w'),
];

/// The program itself.
pub(crate) static ROOT: Command = Command {
    usage: "quoratectl",
    short: "A command line client for Quorate and etcd v3.",
    persistent: &GLOBAL,
    children: &[
        GET,
        PUT,
        DEL,
        TXN,
        COMPACTION,
        family(
            CLUSTER,
            "alarm <subcommand>",
            "Shows and clears alarms",
            ALARM,
        ),
        DEFRAG,
        ENDPOINT,
        top(
            CLUSTER,
            "move-leader <transferee-member-id>",
            "Hands the leadership to another member",
            &[],
            Action::MoveLeader,
        ),
        family(
            CLUSTER,
            "snapshot <subcommand>",
            "Saves, examines and restores backups of a member",
            SNAPSHOT,
        ),
        WATCH,
        top(
            UTILITY,
            "version",
            "Prints the version",
            &[],
            Action::Version,
        ),
        family(
            KV,
            "lease <subcommand>",
            "Grants, renews, shows and revokes leases",
            LEASE,
        ),
        family(
            CLUSTER,
            "member <subcommand>",
            "Shows and changes the members of the cluster",
            MEMBER,
        ),
        family(
            AUTH,
            "auth <enable or disable>",
            "Turns authentication on and off",
            AUTHENTICATION,
        ),
        family(AUTH, "user <subcommand>", "Manages users", USER),
        family(AUTH, "role <subcommand>", "Manages roles", ROLE),
        family(
            CLUSTER,
            "downgrade <TARGET_VERSION>",
            "Prepares a downgrade of the cluster",
            DOWNGRADE,
        ),
        top(
            UTILITY,
            "options",
            "Lists the flags that every command takes",
            &[],
            Action::Options,
        ),
        top(
            UTILITY,
            "help [command]",
            "Explains a command",
            &[],
            Action::Help,
        ),
    ],
    ..NOTHING
};

const PREV_KV: Flag = Flag::boolean("prev-kv", "show what was there before");
const PREFIX: Flag = Flag::boolean("prefix", "take every key that begins with the given one");
const FROM_KEY: Flag = Flag::boolean("from-key", "take the given key and every key after it");
const CONSISTENCY: Flag = Flag::new(
    "consistency",
    Kind::Text,
    "l",
    "Linearizable(l) or Serializable(s)",
);

/// `get`, also a line of a transaction.
pub(crate) const GET: Command = top(
    KV,
    "get [options] <key> [range_end]",
    "Gets a key or a range of keys",
    &[
        CONSISTENCY,
        Flag::boolean("count-only", "only count the keys"),
        FROM_KEY,
        Flag::boolean("keys-only", "leave the values out"),
        Flag::int("limit", "the most results to return"),
        Flag::int("max-create-rev", "the greatest create revision"),
        Flag::int("max-mod-rev", "the greatest modification revision"),
        Flag::int("min-create-rev", "the least create revision"),
        Flag::int("min-mod-rev", "the least modification revision"),
        Flag::text("order", "ASCEND or DESCEND (ASCEND by default)"),
        PREFIX,
        Flag::boolean(
            "print-value-only",
            "print only values in the \"simple\" format",
        ),
        Flag::int("rev", "the revision to read at"),
        Flag::text("sort-by", "CREATE, KEY, MODIFY, VALUE, or VERSION"),
        Flag::boolean("stream", "read the range as a stream"),
    ],
    Action::Get,
);

/// `put`, also a line of a transaction.
pub(crate) const PUT: Command = Command {
    long: "Puts a key.

A value that begins with '-' would be taken for a flag. '--' ends the flags:

$ put <key> -- <value>
$ put -- <key> <value>

Without a value (and without --ignore-value) the value is read from standard input:

$ cat file | put <key>",
    ..top(
        KV,
        "put [options] <key> <value> (<value> can also be given from stdin)",
        "Puts a key",
        &[
            Flag::boolean("ignore-lease", "keep the lease that the key has"),
            Flag::boolean("ignore-value", "keep the value that the key has"),
            Flag::new(
                "lease",
                Kind::Text,
                "0",
                "the lease to attach the key to (hexadecimal)",
            ),
            PREV_KV,
        ],
        Action::Put,
    )
};

/// `del`, also a line of a transaction.
pub(crate) const DEL: Command = top(
    KV,
    "del [options] <key> [range_end]",
    "Deletes a key or the range of keys [key, range_end)",
    &[
        FROM_KEY,
        PREFIX,
        PREV_KV,
        Flag::boolean("range", "delete a range without the pause before it"),
    ],
    Action::Del,
);

const TXN: Command = Command {
    long: "Runs one atomic transaction read from standard input: comparisons, an empty line, the requests for when all of them
hold, an empty line, the requests for when not, an empty line.

mod(\"key1\") > \"0\"

put key1 \"was there\"

put key1 \"is new\"
put key2 'and more'
",
    ..top(
        KV,
        "txn [options]",
        "Runs a transaction",
        &[Flag::boolean("interactive", "prompt for the parts").short(b'i')],
        Action::Txn,
    )
};

const COMPACTION: Command = top(
    KV,
    "compaction [options] <revision>",
    "Discards the history before a revision",
    &[Flag::boolean(
        "physical",
        "wait until the old revisions are gone from storage",
    )],
    Action::Compaction,
);

/// `watch`, also a line of an interactive watch.
pub(crate) const WATCH: Command = top(
    KV,
    "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    "Shows changes of keys as they happen",
    &[
        Flag::boolean("interactive", "read watches from standard input").short(b'i'),
        PREFIX,
        PREV_KV,
        Flag::boolean(
            "progress-notify",
            "show the server's progress notifications",
        ),
        Flag::int("rev", "the revision to begin at"),
    ],
    Action::Watch,
);

const ALARM: &[Command] = &[
    leaf("disarm", "Clears all alarms", &[], Action::AlarmDisarm),
    leaf("list", "Lists all alarms", &[], Action::AlarmList),
];

const SNAPSHOT: &[Command] = &[
    leaf(
        "restore <filename> --data-dir {output dir} [options]",
        "Restores a backup to a new data directory",
        &[
            Flag::int(
                "bump-revision",
                "how much to raise the revision (needs --mark-compacted)",
            ),
            Flag::text("data-dir", "the new data directory"),
            Flag::new(
                "initial-advertise-peer-urls",
                Kind::Text,
                "http://localhost:2380",
                "where the other members reach this one",
            ),
            Flag::new(
                "initial-cluster",
                Kind::Text,
                "default=http://localhost:2380",
                "all members of the new cluster",
            ),
            Flag::new(
                "initial-cluster-token",
                Kind::Text,
                "etcd-cluster",
                "what tells the new cluster from others",
            ),
            Flag::new(
                "initial-memory-map-size",
                Kind::Int,
                "10737418240",
                "taken for etcd's sake, has no effect",
            ),
            Flag::boolean(
                "mark-compacted",
                "mark all before the raised revision as compacted",
            ),
            Flag::new("name", Kind::Text, "default", "the name of this member"),
            Flag::boolean(
                "skip-hash-check",
                "do not look at the backup's hash (a copy of a data directory's file has none)",
            ),
            Flag::text(
                "wal-dir",
                "the new log's directory, in --data-dir if not given",
            ),
        ],
        Action::SnapshotRestore,
    ),
    leaf(
        "save <filename>",
        "Saves a backup of a member to a file",
        &[],
        Action::SnapshotSave,
    ),
    leaf(
        "status <filename>",
        "Prints what a backup holds",
        &[],
        Action::SnapshotStatus,
    ),
];

const CLUSTER_FLAG: Flag = Flag::boolean("cluster", "use the endpoints of all members");

const DEFRAG: Command = Command {
    persistent: &[CLUSTER_FLAG],
    ..top(
        CLUSTER,
        "defrag",
        "Defragments the storage of the given endpoints",
        &[Flag::text(
            "data-dir",
            "the data directory of a member that does not run, to be defragmented in place of endpoints",
        )],
        Action::Defrag,
    )
};

const ENDPOINT: Command = Command {
    persistent: &[CLUSTER_FLAG],
    ..family(
        CLUSTER,
        "endpoint <subcommand>",
        "Examines the given endpoints",
        &[
            leaf(
                "hashkv",
                "Prints the hash of the key history",
                &[Flag::int(
                    "rev",
                    "the last revision to hash (default: the newest)",
                )],
                Action::EndpointHashKv,
            ),
            leaf(
                "health",
                "Says whether they are healthy",
                &[],
                Action::EndpointHealth,
            ),
            leaf("status", "Prints their status", &[], Action::EndpointStatus),
        ],
    )
};

const LEASE: &[Command] = &[
    leaf("grant <ttl>", "Grants a lease", &[], Action::LeaseGrant),
    leaf(
        "keep-alive [options] <leaseID>",
        "Renews a lease again and again",
        &[Flag::boolean("once", "renew it once and end")],
        Action::LeaseKeepAlive,
    ),
    leaf("list", "Lists all leases", &[], Action::LeaseList),
    leaf(
        "revoke <leaseID>",
        "Revokes a lease",
        &[],
        Action::LeaseRevoke,
    ),
    leaf(
        "timetolive <leaseID> [options]",
        "Shows a lease",
        &[Flag::boolean("keys", "show the attached keys too")],
        Action::LeaseTimeToLive,
    ),
];

const PEER_URLS: Flag = Flag::text("peer-urls", "the member's peer URLs, comma separated");

const MEMBER: &[Command] = &[
    leaf(
        "add <memberName> [options]",
        "Adds a member",
        &[Flag::boolean("learner", "add it as a learner"), PEER_URLS],
        Action::MemberAdd,
    ),
    leaf(
        "list",
        "Lists all members",
        &[CONSISTENCY],
        Action::MemberList,
    ),
    leaf(
        "promote <memberID>",
        "Makes a learner a voting member",
        &[],
        Action::MemberPromote,
    ),
    leaf(
        "remove <memberID>",
        "Removes a member",
        &[],
        Action::MemberRemove,
    ),
    leaf(
        "update <memberID> [options]",
        "Changes a member's peer URLs",
        &[PEER_URLS],
        Action::MemberUpdate,
    ),
];

const AUTHENTICATION: &[Command] = &[
    leaf(
        "disable",
        "Turns authentication off",
        &[],
        Action::AuthDisable,
    ),
    leaf("enable", "Turns authentication on", &[], Action::AuthEnable),
    leaf(
        "status",
        "Says whether authentication is on",
        &[],
        Action::AuthStatus,
    ),
];

const INTERACTIVE_PASSWORD: Flag = Flag::new(
    "interactive",
    Kind::Bool,
    "true",
    "prompt for the password, else read a word from standard input",
);

const USER: &[Command] = &[
    leaf(
        "add <user name or user:password> [options]",
        "Adds a user",
        &[
            INTERACTIVE_PASSWORD,
            Flag::text("new-user-password", "the password"),
            Flag::boolean(
                "no-password",
                "add a user that cannot log in with a password",
            ),
        ],
        Action::UserAdd,
    ),
    leaf(
        "delete <user name>",
        "Deletes a user",
        &[],
        Action::UserDelete,
    ),
    leaf(
        "get <user name> [options]",
        "Shows a user",
        &[Flag::boolean(
            "detail",
            "show the permissions of the user's roles",
        )],
        Action::UserGet,
    ),
    leaf(
        "grant-role <user name> <role name>",
        "Gives a user a role",
        &[],
        Action::UserGrantRole,
    ),
    leaf("list", "Lists all users", &[], Action::UserList),
    leaf(
        "passwd <user name> [options]",
        "Changes a user's password",
        &[INTERACTIVE_PASSWORD],
        Action::UserPasswd,
    ),
    leaf(
        "revoke-role <user name> <role name>",
        "Takes a role from a user",
        &[],
        Action::UserRevokeRole,
    ),
];

const ROLE: &[Command] = &[
    leaf("add <role name>", "Adds a role", &[], Action::RoleAdd),
    leaf(
        "delete <role name>",
        "Deletes a role",
        &[],
        Action::RoleDelete,
    ),
    leaf("get <role name>", "Shows a role", &[], Action::RoleGet),
    leaf(
        "grant-permission [options] <role name> <permission type> <key> [endkey]",
        "Gives a role a permission on keys",
        &[FROM_KEY, PREFIX],
        Action::RoleGrantPermission,
    ),
    leaf("list", "Lists all roles", &[], Action::RoleList),
    leaf(
        "revoke-permission <role name> <key> [endkey]",
        "Takes a permission from a role",
        &[FROM_KEY, PREFIX],
        Action::RoleRevokePermission,
    ),
];

const DOWNGRADE: &[Command] = &[
    leaf(
        "cancel",
        "Ends the downgrade under way",
        &[],
        Action::DowngradeCancel,
    ),
    leaf(
        "enable <TARGET_VERSION>",
        "Begins a downgrade",
        &[],
        Action::DowngradeEnable,
    ),
    leaf(
        "validate <TARGET_VERSION>",
        "Says whether a downgrade could begin",
        &[],
        Action::DowngradeValidate,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &'static Command, check: &mut dyn FnMut(&'static Command)) {
        check(command);
        for child in command.children {
            each(child, check);
        }
    }

    #[test]
    fn every_command_runs_or_has_children() {
        each(&ROOT, &mut |c| {
            assert_ne!(c.action.is_some(), !c.children.is_empty(), "{}", c.usage)
        });
    }

    #[test]
    fn flags_and_children_are_listed_in_help_s_order() {
        each(&ROOT, &mut |c| {
            for flags in [c.flags, c.persistent] {
                assert!(flags.is_sorted_by_key(|f| f.name), "{}", c.usage);
            }
            assert!(
                c.usage == ROOT.usage || c.children.is_sorted_by_key(Command::name),
                "{}",
                c.usage
            );
        });
    }

    #[test]
    fn defaults_are_valid() {
        each(&ROOT, &mut |c| {
            for flag in c.flags.iter().chain(c.persistent) {
                let mut flags = super::super::flags::Flags::new(vec![flag]);
                flags.set(flag.name, flag.default.as_bytes());
                assert!(flags.is_given(flag.name), "{}", flag.name);
            }
        });
    }
}
