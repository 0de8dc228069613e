//! Knows who is at the ends of the edges that decoded calls are of; calls of an edge that is new wait for the next look.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;
use tracing::warn;

use super::source::{Ends, Source};
use crate::calls::EdgeCall;

/// How long the ends of edges may be out of date while there are calls.
const LIVE: Duration = Duration::from_secs(1);
/// How soon there is another look when a call is of an edge that was not there.
const SOON: Duration = Duration::from_millis(20);
/// A look may take this part of the time.
const SHARE: u32 = 50;
/// Bounds the memory for calls that wait.
const WAITING: usize = 4096;

/// Who is at the ends of the edges, as of the last look.
#[derive(Default)]
pub(super) struct Callers {
    ends: HashMap<u64, Ends>,
    /// When the last look was over, and how long it took.
    looked: Option<(Instant, Duration)>,
    /// Whether there was a call since.
    used: bool,
    waiting: Vec<Arc<EdgeCall>>,
}

impl Callers {
    /// Who is at the ends of an edge; none while that is not known.
    pub(super) fn ends(&mut self, edge: u64) -> Option<&Ends> {
        self.used = true;
        self.ends.get(&edge)
    }

    /// Keeps a call of an edge that is not known for [`Callers::read`]; false when there is no room.
    pub(super) fn wait(&mut self, call: &Arc<EdgeCall>) -> bool {
        let has_room = self.waiting.len() < WAITING;
        if has_room {
            self.waiting.push(Arc::clone(call));
        }
        has_room
    }

    /// Waits until it is time for a look; for ever when nothing asks for one.
    pub(super) async fn due(&self) {
        let pause = match (self.waiting.is_empty(), self.used) {
            (false, _) => SOON,
            (true, true) => LIVE,
            (true, false) => return std::future::pending().await,
        };
        if let Some((looked, took)) = self.looked {
            sleep_until((looked + pause.max(took * SHARE)).into()).await;
        }
    }

    /// Looks at the edges, and gives the calls that have waited: what is not known of them now is of an edge that is gone.
    pub(super) async fn read(&mut self, source: &Arc<dyn Source>) -> Vec<Arc<EdgeCall>> {
        let (source, start) = (Arc::clone(source), Instant::now());
        match tokio::task::spawn_blocking(move || source.edges()).await {
            Ok(Ok(edges)) => self.ends = edges.into_iter().map(|edge| (edge.id, edge.ends)).collect(),
            Ok(Err(error)) => warn!("name the ends of calls: {error:#}"),
            Err(error) => warn!("name the ends of calls: {error}"),
        }
        self.looked = Some((Instant::now(), start.elapsed()));
        self.used = false;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::{
        export::testing::{TestSource, call, edge},
        protocol::ProtocolName,
    };

    fn get(edge: u64) -> Arc<EdgeCall> {
        let call = call(ProtocolName::Http1, "GET", "/", Some("200"));
        Arc::new(EdgeCall { edge, call })
    }

    #[tokio::test]
    async fn a_call_of_a_new_edge_waits_for_the_next_look() {
        let source = Arc::new(TestSource::default());
        let looked_at: Arc<dyn Source> = Arc::clone(&source) as _;
        let mut callers = Callers::default();
        let soon = Duration::from_secs(5);
        assert!(
            timeout(Duration::from_millis(50), callers.due()).await.is_err(),
            "nobody asks"
        );
        assert_eq!(callers.ends(7), None);
        assert!(callers.wait(&get(7)));
        timeout(soon, callers.due())
            .await
            .expect("the first look is at once");
        source.edges.lock().unwrap().push(edge(7, "web", "db", 1));
        let waited = callers.read(&looked_at).await;
        assert_eq!(waited.len(), 1);
        assert_eq!(callers.ends(7).unwrap().client, "web");
        // Another one that is new does not wait for the names to be out of date.
        assert_eq!(callers.ends(8), None);
        assert!(callers.wait(&get(8)));
        let start = Instant::now();
        timeout(soon, callers.due()).await.expect("soon");
        assert!(start.elapsed() < LIVE);
        assert_eq!(callers.read(&looked_at).await.len(), 1);
        assert_eq!(callers.ends(8), None, "it is gone");
    }

    #[test]
    fn no_more_calls_wait_than_there_is_room_for() {
        let mut callers = Callers::default();
        let call = get(1);
        assert!((0..WAITING).all(|_| callers.wait(&call)));
        assert!(!callers.wait(&call));
    }
}
