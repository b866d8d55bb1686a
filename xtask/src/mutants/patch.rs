//! Patches: read, and applied to texts in memory.
//!
//! What a line number says is a hint only, and the outer lines around a change may have changed: a patch outlives what is done
//! to its surroundings.

use std::collections::BTreeMap;

/// Lines around a change that may be different now, at each end.
const FUZZ_LINES_MAX: usize = 2;

/// A patch with what stands before it.
#[derive(Debug)]
pub(crate) struct Patch {
    /// `NNN` of the file's name.
    pub(crate) number: u32,
    /// The rest of it.
    pub(crate) name: String,
    /// The lines before the patch.
    pub(crate) header: String,
    files: Vec<FilePatch>,
}

#[derive(Debug)]
struct FilePatch {
    path: String,
    is_new: bool,
    hunks: Vec<Hunk>,
}

#[derive(Debug, Default)]
struct Hunk {
    /// Where it was, from 1.
    line: usize,
    /// Lines before and after, without their ends.
    old: Vec<String>,
    new: Vec<String>,
    /// How many lines at the start and at the end are in both.
    before: usize,
    after: usize,
}

/// Texts of files by path, as far as patches have changed them.
pub(crate) type Texts = BTreeMap<String, String>;

impl Patch {
    /// Reads a patch file, `NNN-name.patch`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(file_name: &str, text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("{file_name}: {what}");
        let (number, name) = file_name
            .strip_suffix(".patch")
            .and_then(|stem| stem.split_once('-'))
            .filter(|(number, _)| number.len() == 3)
            .and_then(|(number, name)| Some((number.parse().ok()?, name)))
            .ok_or_else(|| bad("is not called NNN-name.patch"))?;
        let mut patch = Self {
            number,
            name: name.to_owned(),
            header: String::new(),
            files: Vec::new(),
        };
        let mut is_new = false;
        for line in text.lines() {
            if let Some(path) = line.strip_prefix("--- ") {
                is_new = path == "/dev/null";
            } else if let Some(path) = line.strip_prefix("+++ b/") {
                patch.files.push(FilePatch {
                    path: path.to_owned(),
                    is_new,
                    hunks: Vec::new(),
                });
            } else if let Some(file) = patch.files.last_mut() {
                file.take(line)
                    .map_err(|what| bad(&format!("{what}: {line}")))?;
            } else {
                patch.header += line;
                patch.header.push('\n');
            }
        }
        let is_whole = |file: &FilePatch| !file.hunks.is_empty();
        if patch.files.is_empty() || !patch.files.iter().all(is_whole) {
            return Err(bad("changes nothing"));
        }
        for hunk in patch.files.iter_mut().flat_map(|file| &mut file.hunks) {
            hunk.measure();
        }
        Ok(patch)
    }

    /// Applies it to texts; `read` gives those of files that no patch has changed yet.
    ///
    /// # Errors
    /// Which change finds no place, or more than one.
    pub(crate) fn apply(
        &self,
        texts: &mut Texts,
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        for file in &self.files {
            let at =
                |what: &str| format!("{:03}-{}: {}: {what}", self.number, self.name, file.path);
            let before = texts.remove(&file.path).or_else(|| read(&file.path));
            let before = match (before, file.is_new) {
                (None, true) => String::new(),
                (Some(text), false) => text,
                (None, false) => return Err(at("is not there")),
                (Some(_), true) => return Err(at("is there already")),
            };
            let mut lines: Vec<String> = before.lines().map(str::to_owned).collect();
            let mut moved = 0;
            for hunk in &file.hunks {
                moved = hunk
                    .apply(&mut lines, moved)
                    .map_err(|what| at(&format!("the change at line {} {what}", hunk.line)))?;
            }
            let mut text = lines.join("\n");
            text.push('\n');
            texts.insert(file.path.clone(), text);
        }
        Ok(())
    }

    /// Returns the lines that it adds.
    pub(crate) fn added(&self) -> impl Iterator<Item = &str> {
        let hunks = self.files.iter().flat_map(|file| &file.hunks);
        hunks.flat_map(|hunk| {
            let is_added = |line: &&String| !hunk.old.contains(line);
            hunk.new.iter().filter(is_added).map(String::as_str)
        })
    }
}

impl FilePatch {
    fn take(&mut self, line: &str) -> Result<(), &'static str> {
        if let Some(place) = line.strip_prefix("@@ -") {
            let digits = place.split([',', ' ']).next().unwrap_or_default();
            self.hunks.push(Hunk {
                line: digits.parse().map_err(|_| "has no line number")?,
                ..Hunk::default()
            });
            return Ok(());
        }
        let hunk = self.hunks.last_mut().ok_or("belongs to no change")?;
        let (kind, text) = line.split_at_checked(1).unwrap_or((" ", ""));
        let is_both = kind == " ";
        if !["+", "-", " "].contains(&kind) {
            return Err("is no line of a change");
        }
        if is_both || kind == "-" {
            hunk.old.push(text.to_owned());
        }
        if is_both || kind == "+" {
            hunk.new.push(text.to_owned());
        }
        Ok(())
    }
}

impl Hunk {
    fn measure(&mut self) {
        let same = |(a, b): &(&String, &String)| a == b;
        self.before = self.old.iter().zip(&self.new).take_while(same).count();
        let rest = self.old.len().min(self.new.len()) - self.before;
        let ends = self.old.iter().rev().zip(self.new.iter().rev());
        self.after = ends.take(rest).take_while(same).count();
    }

    /// Applies it, `moved` lines from where it was if it can be anywhere; returns by how much it had moved.
    fn apply(&self, lines: &mut Vec<String>, moved: isize) -> Result<isize, String> {
        let hint = self.line.saturating_sub(1);
        let wanted = hint.saturating_add_signed(moved);
        for fuzz in 0..=FUZZ_LINES_MAX {
            let (start, end) = (fuzz.min(self.before), fuzz.min(self.after));
            let old = &self.old[start..self.old.len() - end];
            if old.is_empty() && !self.old.is_empty() {
                continue;
            }
            let fits = |at: &usize| lines[*at..].starts_with(old);
            let mut places: Vec<usize> = (0..=lines.len()).filter(fits).collect();
            places.sort_by_key(|at| at.abs_diff(wanted + start));
            let [nearest, rest @ ..] = &places[..] else {
                continue;
            };
            // A whole match that is the nearest is the one; less than that must leave no doubt.
            if fuzz > 0 && !rest.is_empty() {
                return Err("fits in more than one place".to_owned());
            }
            let new = self.new[start..self.new.len() - end].to_vec();
            lines.splice(*nearest..nearest + old.len(), new);
            let is = nearest.saturating_sub(start).cast_signed();
            let grown = self.new.len().cast_signed() - self.old.len().cast_signed();
            return Ok(is - hint.cast_signed() + grown);
        }
        Err("fits nowhere".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "Row: 1\nWhat: x\n\n--- a/f\n+++ b/f\n@@ -3,7 +3,8 @@\n c\n d\n e\n-f\n+F\n+G\n g\n h\n i\n";

    fn applied(text: &str) -> Result<String, String> {
        let patch = Patch::parse("001-x.patch", PATCH)?;
        let mut texts = Texts::new();
        patch.apply(&mut texts, |_| Some(text.to_owned()))?;
        Ok(texts.remove("f").unwrap())
    }

    #[test]
    fn a_change_is_made_where_it_was_or_where_it_has_moved_to() {
        assert_eq!(
            applied("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap(),
            "a\nb\nc\nd\ne\nF\nG\ng\nh\ni\nj\n"
        );
        assert_eq!(
            applied("x\nc\nd\ne\nf\ng\nh\ni\n").unwrap(),
            "x\nc\nd\ne\nF\nG\ng\nh\ni\n"
        );
        assert_eq!(
            applied("C\nD\ne\nf\ng\nH\nI\n").unwrap(),
            "C\nD\ne\nF\nG\ng\nH\nI\n"
        );
    }

    #[test]
    fn a_change_without_a_place_or_with_two_is_refused() {
        assert!(applied("c\nd\ne\nother\ng\nh\ni\n").is_err());
        assert!(applied("c\nd\nE\nf\ng\nh\ni\n").is_err());
        let error = applied("e\nf\ng\ne\nf\ng\n").unwrap_err();
        assert!(error.contains("more than one place"), "{error}");
        assert!(Patch::parse("x.patch", PATCH).is_err());
        assert!(Patch::parse("001-x.patch", "Row: 1\n").is_err());
    }

    #[test]
    fn later_patches_see_what_earlier_ones_did() {
        let text = "--- /dev/null\n+++ b/f\n@@ -0,0 +1,9 @@\n+a\n+b\n+c\n+d\n+e\n+f\n+g\n+h\n+i\n";
        let first = Patch::parse("000-new.patch", text).unwrap();
        let second = Patch::parse("001-x.patch", PATCH).unwrap();
        let mut texts = Texts::new();
        first.apply(&mut texts, |_| None).unwrap();
        second.apply(&mut texts, |_| None).unwrap();
        assert_eq!(texts["f"], "a\nb\nc\nd\ne\nF\nG\ng\nh\ni\n");
        assert_eq!(second.header, "Row: 1\nWhat: x\n\n");
        assert_eq!(second.added().collect::<Vec<_>>(), ["F", "G"]);
        assert!(first.apply(&mut texts, |_| None).is_err());
    }
}
