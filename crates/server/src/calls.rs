//! Calls of the engine by the server itself, beside those of the front door: peers ask through here.
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::{Error, Intake, Outcome, Outlet, Submission, Token};
use tokio::sync::oneshot;

use crate::queue::Queue;

/// Calls under way at once; more are refused.
const MAX_CALLS: usize = 16_384;
/// What tokens of these calls begin with; the front door's begin with a thread's number, of which there are fewer.
const MARK: u64 = 0xff << 56;

#[derive(Default)]
struct Waiting {
    next: u64,
    calls: BTreeMap<u64, oneshot::Sender<Outcome>>,
}

/// Asks the engine, and takes its answers.
#[derive(Clone)]
pub(crate) struct Calls {
    queue: Queue,
    waiting: Arc<Mutex<Waiting>>,
}

impl Calls {
    pub(crate) fn new(queue: Queue) -> Self {
        Self {
            queue,
            waiting: Arc::default(),
        }
    }

    /// Leaves a submission and waits for its outcome. Dropping the future forgets the call.
    pub(crate) async fn ask(&self, submission: impl FnOnce(Token) -> Submission) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        let token = {
            let mut waiting = self.waiting.lock();
            if waiting.calls.len() >= MAX_CALLS {
                return Outcome::Failed(Error::TooManyRequests);
            }
            waiting.next = (waiting.next + 1) & !MARK;
            let token = MARK | waiting.next;
            waiting.calls.insert(token, sender);
            Token(token)
        };
        let _forget = Forget { calls: self, token };
        let mut one = vec![submission(token)];
        self.queue.submit(&mut one);
        if !one.is_empty() {
            return Outcome::Failed(Error::TooManyRequests);
        }
        receiver.await.unwrap_or(Outcome::Failed(Error::Stopped))
    }

    fn finish(&self, token: Token, outcome: Outcome) {
        // One that is not there was dropped by its caller.
        if let Some(caller) = self.waiting.lock().calls.remove(&token.0) {
            let _ = caller.send(outcome);
        }
    }
}

/// Takes a call that is not waited for any longer off the list, and out of the engine.
struct Forget<'a> {
    calls: &'a Calls,
    token: Token,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let token = self.token;
        if self.calls.waiting.lock().calls.remove(&token.0).is_some() {
            self.calls
                .queue
                .submit(&mut vec![Submission::Cancel { token }]);
        }
    }
}

/// Hands outcomes to whom they belong: the front door or the server's own calls.
pub(crate) struct Switch<O> {
    pub(crate) door: O,
    pub(crate) calls: Calls,
}

impl<O: Outlet> Outlet for Switch<O> {
    fn deliver(&mut self, mut replies: Vec<(Token, Outcome)>) {
        let is_own = |token: &Token| token.0 & MARK == MARK;
        if replies.iter().any(|(token, _)| is_own(token)) {
            let (own, others) = replies.into_iter().partition(|(token, _)| is_own(token));
            replies = others;
            let own: Vec<_> = own;
            for (token, outcome) in own {
                self.calls.finish(token, outcome);
            }
        }
        if !replies.is_empty() {
            self.door.deliver(replies);
        }
    }

    fn published(&mut self) {
        self.door.published();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::queue::Taken;

    #[derive(Default)]
    struct Door(Vec<Token>);

    impl Outlet for Door {
        fn deliver(&mut self, replies: Vec<(Token, Outcome)>) {
            self.0.extend(replies.iter().map(|(token, _)| *token));
        }

        fn published(&mut self) {}
    }

    #[tokio::test]
    async fn outcomes_go_to_whom_they_belong_and_forgotten_calls_are_cancelled() {
        let queue = Queue::default();
        let mut switch = Switch {
            door: Door::default(),
            calls: Calls::new(queue.clone()),
        };
        let calls = switch.calls.clone();
        let asked =
            tokio::spawn(async move { calls.ask(|token| Submission::ReadIndex { token }).await });
        let mut taken = Taken::default();
        while taken.submissions.is_empty() {
            tokio::task::yield_now().await;
            queue.take(Instant::now(), false, &mut taken);
        }
        let Submission::ReadIndex { token } = taken.submissions[0] else {
            panic!("no read");
        };
        switch.deliver(vec![
            (Token(7), Outcome::ReadReady),
            (token, Outcome::ReadReady),
        ]);
        assert!(matches!(asked.await.unwrap(), Outcome::ReadReady));
        assert_eq!(switch.door.0, [Token(7)]);
        let forgotten = switch.calls.ask(|token| Submission::ReadIndex { token });
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(1), forgotten)
                .await
                .is_err()
        );
        let mut taken = Taken::default();
        queue.take(Instant::now(), false, &mut taken);
        assert!(matches!(
            taken.submissions[..],
            [_, Submission::Cancel { .. }]
        ));
    }
}
