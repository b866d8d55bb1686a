//! Backups: saved over the wire, examined and restored by the command line, between Quorate, etcd and back.
//!
//! Source of what is expected: etcd 3.7.1 itself. With `QUORATE_REFERENCE_ETCD` set, `etcdutl` and `etcdctl` are taken from beside it;
//! without, what needs them is skipped and says so. Rows of faults: D4 (damaged backups), C7 (a restore leaves old or new).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use quorate_integration_tests::{Binary, Site, free_port};

/// How often a write is tried that may meet the end of a leader.
const PUT_TRIES: usize = 20;

fn quoratectl() -> PathBuf {
    let own = env::current_exe().unwrap();
    let beside = own.ancestors().nth(2).unwrap().join("quoratectl");
    let path = env::var_os("QUORATECTL_BIN").map_or(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo build --bin quoratectl` first, or set QUORATECTL_BIN",
        path.display()
    );
    path
}

/// etcd and etcdutl, when there are any.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn reference() -> Option<(Binary, PathBuf)> {
    let Some(etcd) = Binary::reference().unwrap() else {
        eprintln!(
            "skipped: QUORATE_REFERENCE_ETCD does not name an etcd 3.7.1 with its etcdutl beside it"
        );
        return None;
    };
    let etcdutl = etcd.path().with_file_name("etcdutl");
    assert!(etcdutl.is_file(), "{} is missing", etcdutl.display());
    Some((etcd, etcdutl))
}

/// Runs a command; gives its exit status, output and errors.
fn run(program: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(program)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().unwrap();
    (status, text(&output.stdout), text(&output.stderr))
}

fn done(program: &Path, args: &[&str]) -> String {
    let (status, out, errors) = run(program, args);
    assert_eq!(status, 0, "{args:?}: {errors}");
    out
}

/// The command line on one server.
struct Ctl {
    endpoint: String,
}

impl Ctl {
    fn of(site: &Site) -> Ctl {
        Ctl {
            endpoint: site.endpoint(),
        }
    }

    fn done(&self, line: &str) -> String {
        let mut args = vec!["--endpoints", &self.endpoint];
        args.extend(line.split(' '));
        done(&quoratectl(), &args)
    }

    fn refused(&self, line: &str) -> String {
        let mut args = vec!["--endpoints", &self.endpoint];
        args.extend(line.split(' '));
        let (status, out, errors) = run(&quoratectl(), &args);
        assert_ne!(status, 0, "{line}: {out}");
        errors
    }

    /// Keys with several versions, deletions, a value of many pages, leases, users, roles, a compaction. Revisions 10 to 60 stay.
    fn fill(&self) {
        for n in 0..40 {
            let value = "v".repeat(n * n * 10 + 1);
            self.done(&format!("put key{} {value}", n % 25));
        }
        self.done(&format!("put large {}", "x".repeat(100_000)));
        self.done("del key3");
        self.done("del key20 key24 --range");
        self.done("put key4 again");
        let granted = self.done("lease grant 5000");
        let lease = granted.split(' ').nth(1).unwrap();
        self.done(&format!("put leased value --lease {lease}"));
        self.done("user add alice:secret");
        self.done("role add reader");
        self.done("role grant-permission reader read key --prefix");
        self.done("user grant-role alice reader");
        self.done("compaction 10 --physical");
        self.done("del key5");
    }

    /// Everything that a restore must keep, as text: hashes at every revision kept, keys, leases, users and roles.
    fn state(&self) -> String {
        let newest: i64 = self.revision();
        let mut state = String::new();
        for revision in 10..=newest {
            let hash = self.done(&format!("endpoint hashkv --rev {revision}"));
            state += hash.split_once(", ").unwrap().1;
        }
        for line in [
            "get key --prefix --write-out fields --rev 12",
            "get leased --write-out fields",
            "get large --write-out fields",
            "get key --prefix --write-out fields",
        ] {
            let answer = self.done(line);
            state += answer.split_once("\"Key\"").unwrap().1;
        }
        for line in [
            "lease list",
            "user list",
            "role get reader",
            "user get alice",
        ] {
            state += &self.done(line);
        }
        state
    }

    fn revision(&self) -> i64 {
        let answer = self.done("get none --write-out fields");
        let line = answer
            .lines()
            .find(|line| line.starts_with("\"Revision\""))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn save(&self, path: &Path) {
        let saved = self.done(&format!("snapshot save {}", path.display()));
        assert_eq!(
            saved,
            format!(
                "Snapshot saved at {}\nServer version 3.7.0\n",
                path.display()
            )
        );
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn restore(program: &Path, backup: &Path, data_dir: &Path, more: &[&str]) {
    let mut args = vec![
        "snapshot",
        "restore",
        text(backup),
        "--data-dir",
        text(data_dir),
    ];
    args.extend(more);
    done(program, &args);
}

#[test]
fn backup_restores_to_the_same_keys_leases_users_and_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let mut server = site.start().unwrap();
    let ctl = Ctl::of(&site);
    ctl.fill();
    let state = ctl.state();
    let backup = dir.path().join("backup");
    ctl.save(&backup);
    assert!(!dir.path().join("backup.part").exists());
    server.terminate().unwrap();

    let copy = Site::new(&Binary::quorate().unwrap()).unwrap();
    let copy = copy.with_data_dir(&dir.path().join("copy"));
    restore(&quoratectl(), &backup, &copy.data_dir(), &[]);
    let mut server = copy.start().unwrap();
    let ctl = Ctl::of(&copy);
    assert_eq!(ctl.state(), state);
    let members = ctl.done("member list");
    assert!(
        members.starts_with("8e9e05c52164694d, started, default, http://localhost:2380, "),
        "{members}"
    );
    // It goes on from there, over a restart too.
    let revision = ctl.revision();
    ctl.done("put more value");
    server.kill().unwrap();
    let _server = copy.start().unwrap();
    assert_eq!(ctl.revision(), revision + 1);
}

#[test]
fn restore_refuses_what_it_must_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let _server = site.start().unwrap();
    let ctl = Ctl::of(&site);
    for n in 0..50 {
        ctl.done(&format!("put key{n} {}", "v".repeat(500)));
    }
    let backup = dir.path().join("backup");
    ctl.save(&backup);
    let whole = fs::read(&backup).unwrap();
    let bad = dir.path().join("bad");
    let target = dir.path().join("target");
    let refused = |bytes: &[u8], more: &[&str], says: &str| {
        fs::write(&bad, bytes).unwrap();
        let mut args = vec![
            "snapshot",
            "restore",
            text(&bad),
            "--data-dir",
            text(&target),
        ];
        args.extend(more);
        let (status, _, errors) = run(&quoratectl(), &args);
        assert_eq!(status, 1, "{says}: {errors}");
        assert!(errors.contains(says), "{says}: {errors}");
        assert!(!target.exists(), "{says}");
    };
    let mut flipped = whole.clone();
    flipped[9_000] ^= 1;
    refused(&flipped, &[], "sha256 does not match");
    refused(
        &whole[..whole.len() - 32],
        &[],
        "snapshot missing hash but --skip-hash-check=false",
    );
    refused(&whole[..20_480], &["--skip-hash-check"], "cut short");
    refused(&[7; 20_000], &["--skip-hash-check"], "not a database image");
    let mut newer = whole[..whole.len() - 32].to_vec();
    let at = newer
        .windows(19)
        .position(|w| w == b"storageVersion3.7.0")
        .unwrap();
    newer[at + 16] = b'9';
    refused(
        &newer,
        &["--skip-hash-check"],
        "storage version 3.9.0, which is newer",
    );
    refused(&whole, &["--name", "other"], "couldn't find local name");
    refused(
        &whole,
        &["--initial-advertise-peer-urls", "http://x:1"],
        "missing from --initial-advertise-peer-urls",
    );
    let args = ["snapshot", "restore", text(&backup), "--mark-compacted"];
    assert_eq!(run(&quoratectl(), &args).0, 128);
}

#[test]
fn what_is_there_already_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let _server = site.start().unwrap();
    let ctl = Ctl::of(&site);
    ctl.done("put key value");
    let backup = dir.path().join("backup");
    ctl.save(&backup);
    let target = dir.path().join("target");
    restore(&quoratectl(), &backup, &target, &[]);
    let before = fs::read(target.join("member/snap/quorate.db")).unwrap();
    let args = [
        "snapshot",
        "restore",
        text(&backup),
        "--data-dir",
        text(&target),
    ];
    let (status, _, errors) = run(&quoratectl(), &args);
    assert_eq!(status, 1);
    assert!(errors.contains("not empty"), "{errors}");
    assert_eq!(
        fs::read(target.join("member/snap/quorate.db")).unwrap(),
        before
    );
    // Saving to a place that is not there says so.
    let missing = dir.path().join("none/backup");
    let errors = ctl.refused(&format!("snapshot save {}", missing.display()));
    assert!(errors.contains("could not open"), "{errors}");
}

#[test]
fn raised_revision_hides_all_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let _server = site.start().unwrap();
    Ctl::of(&site).fill();
    let old = Ctl::of(&site).revision();
    let backup = dir.path().join("backup");
    Ctl::of(&site).save(&backup);
    let raise = ["--bump-revision", "1000000", "--mark-compacted"];
    let copy = Site::new(&Binary::quorate().unwrap()).unwrap();
    let copy = copy.with_data_dir(&dir.path().join("copy"));
    restore(&quoratectl(), &backup, &copy.data_dir(), &raise);
    let mut server = copy.start().unwrap();
    let ctl = Ctl::of(&copy);
    let check = |ctl: &Ctl| {
        assert_eq!(ctl.revision(), old + 1_000_000);
        assert_eq!(ctl.done("get key4"), "key4\nagain\n");
        let errors = ctl.refused(&format!("get key4 --rev {old}"));
        assert!(errors.contains("has been compacted"), "{errors}");
        let errors = ctl.refused("watch key4 --rev 15");
        assert!(errors.contains("compacted"), "{errors}");
        let newest = format!("endpoint hashkv --rev {}", old + 1_000_000);
        let hash = ctl.done(&newest);
        let count = ctl.done("get  --prefix --count-only --write-out fields");
        let count = count
            .lines()
            .find(|line| line.starts_with("\"Count\""))
            .unwrap()
            .to_owned();
        (hash.split_once(", ").unwrap().1.to_owned(), count)
    };
    let found = check(&ctl);
    server.terminate().unwrap();
    let _server = copy.start().unwrap();
    assert_eq!(check(&ctl), found);
    let Some((etcd, etcdutl)) = reference() else {
        return;
    };
    let other = Site::new(&etcd)
        .unwrap()
        .with_data_dir(&dir.path().join("etcd"));
    restore(&etcdutl, &backup, &other.data_dir(), &raise);
    let _server = other.start().unwrap();
    assert_eq!(check(&Ctl::of(&other)), found);
}

#[test]
fn backup_moves_from_etcd_to_quorate_and_back() {
    let Some((etcd, etcdutl)) = reference() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let first = Site::new(&etcd).unwrap();
    let mut server = first.start().unwrap();
    Ctl::of(&first).fill();
    let state = Ctl::of(&first).state();
    let backup = dir.path().join("first");
    Ctl::of(&first).save(&backup);
    server.terminate().unwrap();
    same_status(&etcdutl, &backup);

    let second = Site::new(&Binary::quorate().unwrap()).unwrap();
    let second = second.with_data_dir(&dir.path().join("second-data"));
    restore(&quoratectl(), &backup, &second.data_dir(), &[]);
    let mut server = second.start().unwrap();
    assert_eq!(Ctl::of(&second).state(), state);
    let backup = dir.path().join("second");
    Ctl::of(&second).save(&backup);
    server.terminate().unwrap();
    same_status(&etcdutl, &backup);

    let third = Site::new(&etcd)
        .unwrap()
        .with_data_dir(&dir.path().join("third-data"));
    restore(&etcdutl, &backup, &third.data_dir(), &[]);
    let mut server = third.start().unwrap();
    let ctl = Ctl::of(&third);
    assert_eq!(ctl.state(), state);
    // etcd writes to the file that we laid out: every page of it is touched sooner or later.
    for n in 0..40 {
        ctl.done(&format!("put key{} {}", n % 25, "w".repeat(3_000)));
    }
    ctl.done("compaction 30 --physical");
    ctl.done("defrag");
    ctl.done("compaction 60 --physical");
    let kept = ctl.done("endpoint hashkv");
    server.terminate().unwrap();
    let _server = third.start().unwrap();
    assert_eq!(ctl.done("endpoint hashkv"), kept);

    // The file of a stopped member, without a hash.
    let fourth = Site::new(&Binary::quorate().unwrap()).unwrap();
    let fourth = fourth.with_data_dir(&dir.path().join("fourth-data"));
    let file = first.data_dir().join("member/snap/db");
    restore(
        &quoratectl(),
        &file,
        &fourth.data_dir(),
        &["--skip-hash-check"],
    );
    let _server = fourth.start().unwrap();
    assert_eq!(Ctl::of(&fourth).state(), state);
}

fn same_status(etcdutl: &Path, backup: &Path) {
    for format in ["simple", "json", "fields", "table"] {
        let args = ["snapshot", "status", text(backup), "-w", format];
        assert_eq!(done(&quoratectl(), &args), done(etcdutl, &args), "{format}");
    }
}

/// All three members are restored from one backup, find each other, agree, and go on over the loss of one.
#[test]
fn cluster_of_three_is_restored_from_one_backup() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&Binary::quorate().unwrap()).unwrap();
    let mut server = site.start().unwrap();
    Ctl::of(&site).fill();
    let state = Ctl::of(&site).state();
    let backup = dir.path().join("backup");
    Ctl::of(&site).save(&backup);
    server.terminate().unwrap();

    let names = ["a", "b", "c"];
    let peers = names.map(|_| format!("http://127.0.0.1:{}", free_port()));
    let pairs = names.iter().zip(&peers);
    let cluster: Vec<String> = pairs.map(|(name, url)| format!("{name}={url}")).collect();
    let cluster = cluster.join(",");
    let sites: Vec<Site> = names
        .iter()
        .zip(&peers)
        .map(|(name, url)| {
            let data_dir = dir.path().join(name);
            let own = [
                format!("--name={name}"),
                format!("--initial-cluster={cluster}"),
                format!("--initial-advertise-peer-urls={url}"),
            ];
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            restore(&quoratectl(), &backup, &data_dir, &own);
            let site = Site::new(&Binary::quorate().unwrap()).unwrap();
            let listen = format!("--listen-peer-urls={url}");
            let site = site.with_data_dir(&data_dir);
            site.with_args(&own).with_args(&[listen.as_str()])
        })
        .collect();
    let mut servers: Vec<_> = sites.iter().map(|site| site.spawn().unwrap()).collect();
    for server in &mut servers {
        server.wait_ready().unwrap();
    }
    for site in &sites {
        let members = Ctl::of(site).done("member list");
        assert_eq!(members.lines().count(), 3, "{members}");
        assert_eq!(Ctl::of(site).state(), state);
    }
    servers[0].kill().unwrap();
    // The member lost may have been the leader, whose end a write under way may learn as an error.
    let endpoint = sites[1].endpoint();
    let put = ["--endpoints", &endpoint, "put", "after", "loss"];
    let written = (0..PUT_TRIES).any(|_| run(&quoratectl(), &put).0 == 0);
    assert!(
        written,
        "nothing can be written after the loss of one of three"
    );
    let read = Ctl::of(&sites[2]).done("get after --command-timeout 20s");
    assert_eq!(read, "after\nloss\n");
}
