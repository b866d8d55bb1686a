//! One line an event, in plain words, when somebody wants to read it.

/// Where lines go.
#[derive(Debug, Default)]
pub enum Trace {
    /// Nowhere; no line is made.
    #[default]
    Off,
    /// The newest so many are kept.
    Tail(std::collections::VecDeque<String>, usize),
    /// To standard output, as they come.
    Print,
    /// To standard output, with every tick and how far each disk is: two such traces show where two runs part.
    PrintAll,
}

impl Trace {
    /// Says whether lines are wanted.
    pub fn is_on(&self) -> bool {
        !matches!(self, Trace::Off)
    }

    /// Says whether every event is wanted.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Trace::PrintAll)
    }

    /// Takes a line.
    #[expect(clippy::print_stdout, reason = "a tool for the terminal")]
    pub(crate) fn line(&mut self, now_ms: u64, text: &str) {
        let line = || format!("{:>7}.{:03} {text}", now_ms / 1_000, now_ms % 1_000);
        match self {
            Trace::Off => {}
            Trace::Print | Trace::PrintAll => println!("{}", line()),
            Trace::Tail(lines, limit) => {
                if lines.len() == *limit {
                    lines.pop_front();
                }
                lines.push_back(line());
            }
        }
    }

    /// Returns the lines that were kept.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Trace::Tail(lines, _) => lines.iter().cloned().collect(),
            Trace::Off | Trace::Print | Trace::PrintAll => Vec::new(),
        }
    }
}
