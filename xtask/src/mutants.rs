//! Mutants: bugs that patches put back into a copy of the sources, to see whether the simulator finds them.

mod hunt;
mod patch;
mod results;
mod run;
mod workspace;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

pub(crate) use run::run;

use patch::{Patch, Texts};

/// Where the patches are, from the top of the repository.
const FOLDER: &str = "simulator/mutants";
/// The patch with the switch that all others ask.
const SWITCH: &str = "switch";
/// Lines that stand before a mutant's patch.
const HEADS: [&str; 3] = ["Row: ", "What: ", "Found by: "];

/// Reads all patches, in order: that of the switch is the first.
///
/// # Errors
/// What is wrong with one of them.
fn read_patches(root: &Path) -> Result<Vec<Patch>, String> {
    let io = |e: std::io::Error| format!("{FOLDER}: {e}");
    let mut patches = Vec::new();
    for entry in fs::read_dir(root.join(FOLDER)).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".patch") {
            let text = fs::read_to_string(entry.path()).map_err(io)?;
            patches.push(Patch::parse(&name, &text)?);
        }
    }
    patches.sort_by_key(|patch| patch.number);
    let mut numbers = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (at, patch) in patches.iter().enumerate() {
        if !numbers.insert(patch.number) || !names.insert(&patch.name) {
            return Err(format!(
                "{:03}-{}: number or name is used twice",
                patch.number, patch.name
            ));
        }
        check_patch(patch, at == 0)?;
    }
    Ok(patches)
}

/// Checks that a patch says what it is, and that the bug is behind its own switch and no other.
fn check_patch(patch: &Patch, is_first: bool) -> Result<(), String> {
    let bad = |what: &str| format!("{:03}-{}: {what}", patch.number, patch.name);
    if is_first || patch.name == SWITCH {
        let is_switch = is_first && patch.name == SWITCH;
        return is_switch
            .then_some(())
            .ok_or_else(|| bad("only the first patch is the switch's"));
    }
    let lacks = |head: &&&str| !patch.header.lines().any(|line| line.starts_with(**head));
    if let Some(head) = HEADS.iter().find(lacks) {
        return Err(bad(&format!("lacks a line \"{head}\"")));
    }
    let switches: BTreeSet<&str> = patch.added().filter_map(switch_of).collect();
    if switches.iter().ne([&patch.name.as_str()]) {
        return Err(bad("does not ask its own switch, or another"));
    }
    Ok(())
}

/// Finds the name in a line that asks a switch.
fn switch_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("mutant!(\"")?;
    rest.split_once('"').map(|(name, _)| name)
}

/// Applies all patches, in order, in memory.
///
/// # Errors
/// The first change that finds no place.
fn apply_all(root: &Path, patches: &[Patch]) -> Result<Texts, String> {
    let mut texts = Texts::new();
    for patch in patches {
        patch.apply(&mut texts, |path| fs::read_to_string(root.join(path)).ok())?;
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    /// Bugs of etcd in the list that the patches go by.
    const ROWS: u32 = 40;

    #[test]
    fn every_patch_applies_to_the_sources_as_they_are() {
        let patches = read_patches(&root()).unwrap();
        assert!(patches.len() > 30, "{} patches", patches.len());
        let texts = apply_all(&root(), &patches).unwrap();
        for patch in &patches[1..] {
            let asks = |text: &&String| text.contains(&format!("mutant!(\"{}\")", patch.name));
            assert!(texts.values().any(|text| asks(&text)), "{}", patch.name);
        }
    }

    #[test]
    fn the_table_names_every_row_and_every_mutant() {
        let readme = fs::read_to_string(root().join(FOLDER).join("README.md")).unwrap();
        let cells = |line: &str| -> Vec<String> {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        };
        let rows: Vec<Vec<String>> = readme.lines().map(cells).collect();
        for row in 1..=ROWS {
            let is_it = |cells: &Vec<String>| cells.len() > 2 && cells[0] == row.to_string();
            assert!(rows.iter().any(is_it), "row {row} is not in the table");
        }
        for patch in &read_patches(&root()).unwrap()[1..] {
            let name = format!("`{}`", patch.name);
            assert!(readme.contains(&name), "{name} is not in the table");
        }
    }
}
