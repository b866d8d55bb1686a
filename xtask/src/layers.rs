//! Which crate may depend on which, and which may reach tokio.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::Outcome;
use crate::workspace::cargo;

/// A crate with its place in the order.
struct Layer {
    name: &'static str,
    /// Crates of the workspace that it may use.
    uses: &'static [&'static str],
    /// Whether it may reach tokio.
    tokio: Tokio,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tokio {
    /// Synchronous and replayable.
    Never,
    /// It may.
    May,
    /// It does: when it does not, this check has gone blind.
    Must,
}

/// The order, lowest first: dependencies point upward in this list, and crates that do not name each other are
/// siblings. Source: ARCHITECTURE.md.
#[rustfmt::skip]
const LAYERS: &[Layer] = &[
    Layer { name: "quorate-proto", uses: &[], tokio: Tokio::Never },
    Layer { name: "quorate-disk", uses: &[], tokio: Tokio::Never },
    Layer { name: "quorate-wal", uses: &["quorate-disk"], tokio: Tokio::Never },
    Layer { name: "quorate-snap", uses: &["quorate-disk"], tokio: Tokio::Never },
    Layer { name: "quorate-backend", uses: &["quorate-disk"], tokio: Tokio::Never },
    Layer { name: "quorate-lease", uses: &["quorate-proto", "quorate-backend"], tokio: Tokio::Never },
    Layer { name: "quorate-mvcc", uses: &["quorate-proto", "quorate-backend"], tokio: Tokio::Never },
    Layer { name: "quorate-auth", uses: &["quorate-proto", "quorate-backend"], tokio: Tokio::Never },
    Layer { name: "quorate-core",
        uses: &["quorate-proto", "quorate-disk", "quorate-wal", "quorate-snap", "quorate-backend", "quorate-lease", "quorate-mvcc", "quorate-auth"],
        tokio: Tokio::Never },
    Layer { name: "quorate-transport", uses: &["quorate-proto"], tokio: Tokio::May },
    Layer { name: "quorate-rpc",
        uses: &["quorate-proto", "quorate-backend", "quorate-lease", "quorate-mvcc", "quorate-auth", "quorate-core"],
        tokio: Tokio::Must },
    // Backups are files of the layers below: restoring one founds a data directory by the same rules as a member does.
    Layer { name: "quorate-ctl",
        uses: &["quorate-proto", "quorate-disk", "quorate-snap", "quorate-backend", "quorate-core"],
        tokio: Tokio::May },
    Layer { name: "quorate-server",
        uses: &["quorate-proto", "quorate-disk", "quorate-wal", "quorate-snap", "quorate-backend", "quorate-lease", "quorate-mvcc", "quorate-auth", "quorate-core", "quorate-transport", "quorate-rpc"],
        tokio: Tokio::Must },
];

/// Packages that check or measure the others and may use any of them.
const TOOLS: &[&str] = &[
    "xtask",
    "quorate-benches",
    "quorate-integration-tests",
    "quorate-simulator",
];

/// Libraries that only some crates may name, tests aside.
#[rustfmt::skip]
const FENCED: &[(&str, &[&str])] = &[
    ("raft", &["quorate-core"]),
    ("slog", &["quorate-core", "quorate-server"]),
    ("redb", &["quorate-backend"]),
    ("memmap2", &["quorate-disk"]),
    ("tonic", &["quorate-ctl"]),
    ("prost", &["quorate-proto", "quorate-lease", "quorate-mvcc", "quorate-auth", "quorate-core", "quorate-transport", "quorate-rpc", "quorate-ctl", "quorate-server"]),
];

/// A package's dependencies as its manifest has them.
#[derive(Debug, PartialEq)]
struct Package {
    name: String,
    /// Names, with whether for tests alone.
    uses: Vec<(String, bool)>,
}

/// Checks the workspace.
pub(crate) fn run(_: &[String]) -> Outcome {
    let packages = read_metadata(&metadata()?)?;
    let mut breaches = check_edges(&packages);
    breaches.extend(check_tokio(&packages, reaches_tokio)?);
    if breaches.is_empty() {
        println!("layers: {} packages are in order", packages.len());
        return Ok(());
    }
    Err(format!("{} breaches\n  {}", breaches.len(), breaches.join("\n  ")).into())
}

fn metadata() -> Result<Json, Box<dyn std::error::Error>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn read_metadata(metadata: &Json) -> Result<Vec<Package>, String> {
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata has no packages")?;
    let package = |json: &Json| {
        let name = json["name"]
            .as_str()
            .ok_or("a package without a name")?
            .to_owned();
        let uses = json["dependencies"]
            .as_array()
            .ok_or("a package without dependencies")?;
        let edge = |json: &Json| {
            Some((
                json["name"].as_str()?.to_owned(),
                json["kind"].as_str() == Some("dev"),
            ))
        };
        Ok(Package {
            name,
            uses: uses.iter().filter_map(edge).collect(),
        })
    };
    packages.iter().map(package).collect()
}

/// Returns the edges between packages that are out of order.
fn check_edges(packages: &[Package]) -> Vec<String> {
    let members: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut breaches = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        if TOOLS.contains(&name) {
            continue;
        }
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == name) else {
            breaches.push(format!("{name} has no place in the layers"));
            continue;
        };
        for (used, for_tests) in &package.uses {
            let used = used.as_str();
            let fenced = FENCED.iter().find(|(library, _)| *library == used);
            if !for_tests && fenced.is_some_and(|(_, allowed)| !allowed.contains(&name)) {
                breaches.push(format!("{name} names {used}, which is for others"));
            }
            if !members.contains(used) {
                continue;
            }
            // Tests may use whatever stands below.
            let allowed = layer.uses.contains(&used) || (*for_tests && reaches(name, used));
            if !allowed {
                let what = if *for_tests { "tests of " } else { "" };
                breaches.push(format!("{what}{name} must not depend on {used}"));
            }
        }
    }
    breaches
}

/// Returns whether a crate stands below another, over however many steps.
fn reaches(from: &str, to: &str) -> bool {
    let uses = LAYERS
        .iter()
        .find(|layer| layer.name == from)
        .map_or(&[][..], |layer| layer.uses);
    uses.contains(&to) || uses.iter().any(|next| reaches(next, to))
}

/// Returns the packages that reach tokio and may not, or must and do not.
fn check_tokio(
    packages: &[Package],
    reaches_tokio: impl Fn(&str) -> Result<bool, Box<dyn std::error::Error>>,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut breaches = Vec::new();
    for package in packages {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == package.name) else {
            continue;
        };
        match (layer.tokio, reaches_tokio(layer.name)?) {
            (Tokio::Never, true) => breaches.push(format!("{} reaches tokio", layer.name)),
            (Tokio::Must, false) => breaches.push(format!(
                "{} does not reach tokio: is this check blind?",
                layer.name
            )),
            _ => {}
        }
    }
    Ok(breaches)
}

/// Asks cargo whether a package reaches tokio by what it is built from, tests left out.
fn reaches_tokio(package: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let output = cargo()
        .args([
            "tree",
            "--package",
            package,
            "--edges",
            "normal",
            "--invert",
            "tokio",
        ])
        .output()?;
    if output.status.success() {
        // Cargo also ends well with "nothing to print" when tokio is somewhere else in the workspace.
        return Ok(!output.stdout.is_empty());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("did not match any packages") {
        return Ok(false);
    }
    Err(format!("cargo tree -p {package}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_in_order() {
        run(&[]).unwrap();
    }

    fn workspace(edges: &[(&str, &str, &str)]) -> Vec<Package> {
        let package = |name: &&str| {
            let uses: Vec<Json> = edges
                .iter()
                .filter(|(from, _, _)| from == name)
                .map(|(_, to, kind)| serde_json::json!({ "name": to, "kind": (!kind.is_empty()).then_some(*kind) }))
                .collect();
            serde_json::json!({ "name": name, "dependencies": uses })
        };
        let names: Vec<&str> = LAYERS
            .iter()
            .map(|layer| layer.name)
            .chain(["xtask", "quorate-new"])
            .collect();
        let wanted = names
            .iter()
            .filter(|name| **name != "quorate-new" || edges.iter().any(|edge| edge.0 == **name));
        let packages: Vec<Json> = wanted.map(package).collect();
        read_metadata(&serde_json::json!({ "packages": packages })).unwrap()
    }

    #[test]
    fn edges_downward_are_in_order() {
        let packages = workspace(&[
            ("quorate-server", "quorate-core", ""),
            ("quorate-core", "quorate-mvcc", ""),
            ("quorate-mvcc", "quorate-backend", ""),
            ("quorate-mvcc", "quorate-disk", "dev"),
            ("quorate-backend", "redb", ""),
            ("quorate-core", "raft", ""),
            ("xtask", "quorate-wal", ""),
        ]);
        assert_eq!(check_edges(&packages), [""; 0]);
    }

    /// An edge, its kind, and what is said about it.
    #[rustfmt::skip]
    const OUT_OF_ORDER: &[(&str, &str, &str, &str)] = &[
        ("quorate-mvcc", "quorate-lease", "", "quorate-mvcc must not depend on quorate-lease"),
        ("quorate-mvcc", "quorate-lease", "dev", "tests of quorate-mvcc must not depend on quorate-lease"),
        ("quorate-snap", "quorate-wal", "dev", "tests of quorate-snap must not depend on quorate-wal"),
        ("quorate-mvcc", "quorate-disk", "", "quorate-mvcc must not depend on quorate-disk"),
        ("quorate-wal", "quorate-core", "", "quorate-wal must not depend on quorate-core"),
        ("quorate-wal", "quorate-core", "dev", "tests of quorate-wal must not depend on quorate-core"),
        ("quorate-rpc", "quorate-server", "build", "quorate-rpc must not depend on quorate-server"),
        ("quorate-server", "quorate-ctl", "", "quorate-server must not depend on quorate-ctl"),
        ("quorate-core", "xtask", "", "quorate-core must not depend on xtask"),
        ("quorate-wal", "prost", "", "quorate-wal names prost, which is for others"),
        ("quorate-server", "raft", "", "quorate-server names raft, which is for others"),
        ("quorate-new", "bytes", "", "quorate-new has no place in the layers"),
    ];

    #[test]
    fn edges_out_of_order_are_found() {
        for (from, to, kind, breach) in OUT_OF_ORDER {
            assert_eq!(check_edges(&workspace(&[(from, to, kind)])), [*breach]);
        }
    }

    #[test]
    fn packages_that_reach_tokio_are_found() {
        let packages = workspace(&[]);
        let must = |name: &str| matches!(name, "quorate-rpc" | "quorate-server");
        assert_eq!(
            check_tokio(&packages, |name| Ok(must(name))).unwrap(),
            [""; 0]
        );
        let low = check_tokio(&packages, |name| Ok(must(name) || name == "quorate-mvcc")).unwrap();
        assert_eq!(low, ["quorate-mvcc reaches tokio"]);
        let blind = check_tokio(&packages, |_| Ok(false)).unwrap();
        assert_eq!(blind.len(), 2);
        assert!(check_tokio(&packages, |_| Err("cargo is gone".into())).is_err());
    }
}
