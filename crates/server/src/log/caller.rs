//! Where in the source a line was logged.

/// A place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller<'a> {
    file: &'a str,
    line: u32,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(file: &'a str, line: u32) -> Caller<'a> {
        Caller { file, line }
    }

    /// Appends it as `directory/file.rs:12`; a directory `src` is left out.
    pub(crate) fn write(self, out: &mut String) {
        let mut parts = self.file.rsplit(['/', '\\']).filter(|part| *part != "src");
        let file = parts.next().unwrap_or("");
        if let Some(directory) = parts.next() {
            out.push_str(directory);
            out.push('/');
        }
        out.push_str(file);
        out.push(':');
        out.push_str(&self.line.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_short() {
        for (file, expected) in [
            ("crates/server/src/main.rs", "server/main.rs:7"),
            ("crates/server/src/config/load.rs", "config/load.rs:7"),
            ("main.rs", "main.rs:7"),
            ("a\\src\\b.rs", "a/b.rs:7"),
        ] {
            let mut out = String::new();
            Caller::new(file, 7).write(&mut out);
            assert_eq!(out, expected);
        }
    }
}
