//! Seeds are spread over all that happens in a run.
use quorate_integration_tests::Random;

/// What goes wrong in a run, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// One message in so many is lost; 0 for none.
    pub(crate) loss: u64,
    /// One message in so many comes twice; 0 for none.
    pub(crate) twice: u64,
    /// A message takes up to so long, in ms; messages overtake each other within it.
    pub(crate) delay_ms: u64,
    /// A sync takes up to so long, in ms.
    pub(crate) sync_ms: u64,
    /// One sync in so many takes several election timeouts; 0 for none.
    pub(crate) stall: u64,
    /// A link, or a member, is cut or healed every so many ms; 0 for never.
    pub(crate) cut_ms: u64,
    /// A member is killed every so many ms, to start again soon; 0 for never.
    pub(crate) kill_ms: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        loss: 0,
        twice: 0,
        delay_ms: 2,
        sync_ms: 2,
        stall: 0,
        cut_ms: 0,
        kill_ms: 0,
    };

    /// Draws a mix in which any of them may be missing.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut maybe = |values: &[u64]| {
            let at = random.below(values.len() as u64 + 1);
            usize::try_from(at)
                .ok()
                .and_then(|at| values.get(at))
                .copied()
                .unwrap_or(0)
        };
        Self {
            loss: maybe(&[100, 20, 5]),
            twice: maybe(&[50, 10]),
            delay_ms: 1 + maybe(&[1, 5, 20, 60]),
            sync_ms: 1 + maybe(&[2, 10, 40]),
            stall: maybe(&[200, 50]),
            cut_ms: maybe(&[800, 300]),
            kill_ms: maybe(&[1_500, 600]),
        }
    }
}
