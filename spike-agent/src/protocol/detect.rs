//! Finds out which protocol a conversation speaks.

use super::{
    Kind, Side, Verdict,
    stream::{Mode, Stream},
};

/// Bytes of a side after which its protocol must be known.
const DETECT_LIMIT: usize = 4096;
/// Packets of a conversation that is joined in its middle, of which one should start with a message.
const TRIES: u32 = 32;

pub(super) enum Found {
    Kind(&'static Kind),
    NotYet,
    Nothing,
}

/// The search for a protocol.
pub(super) struct Detector {
    kinds: &'static [Kind],
    server_port: u16,
    tries: u32,
}

impl Detector {
    pub(super) fn new(kinds: &'static [Kind], server_port: u16) -> Self {
        Self {
            kinds,
            server_port,
            tries: TRIES,
        }
    }

    /// Looks at what the streams hold.
    pub(super) fn look(&mut self, streams: &mut [Stream; 2]) -> Found {
        for side in [Side::Client, Side::Server] {
            let stream = &mut streams[side as usize];
            let too_long = stream.held.len() > DETECT_LIMIT;
            let hopeless = |kind: &Kind| verdict(kind, side, &stream.held).is_none_or(|v| v == Verdict::No);
            if stream.held.is_empty() || !(too_long || self.kinds.iter().all(hopeless)) {
                continue;
            }
            let known = self.best(streams, Verdict::Yes);
            if let (true, Some(kind)) = (too_long, known) {
                return Found::Kind(kind);
            }
            self.tries -= 1;
            if streams[side as usize].mode != Mode::Unsynced || self.tries == 0 {
                return Found::Nothing;
            }
            streams[side as usize].forget();
        }
        if let Some(kind) = self.best(streams, Verdict::Yes) {
            return Found::Kind(kind);
        }
        let spoken = streams.iter().all(|stream| !stream.held.is_empty());
        if spoken && self.best(streams, Verdict::No).is_none() {
            // Each side could speak something, but no two the same: one begins in the middle of a message.
            let [client, server] = streams;
            let older = if client.first_at() <= server.first_at() {
                client
            } else {
                server
            };
            self.tries -= 1;
            if older.mode != Mode::Unsynced || self.tries == 0 {
                return Found::Nothing;
            }
            older.forget();
        }
        // Both have spoken, and neither says enough: the port decides.
        let likely = self.best(streams, Verdict::Maybe).filter(|kind| {
            let both = streams.iter().all(|stream| !stream.held.is_empty());
            both && kind.ports.contains(&self.server_port)
        });
        likely.map_or(Found::NotYet, Found::Kind)
    }

    /// The protocol that fits with at least that verdict, those of the port first.
    fn best(&self, streams: &[Stream; 2], least: Verdict) -> Option<&'static Kind> {
        let fits = |kind: &&Kind| {
            let verdicts = [Side::Client, Side::Server]
                .map(|side| verdict(kind, side, &streams[side as usize].held))
                .into_iter()
                .flatten();
            let (mut low, mut high) = (Verdict::Yes, Verdict::No);
            for verdict in verdicts {
                (low, high) = (low.min(verdict), high.max(verdict));
            }
            low != Verdict::No && high >= least
        };
        let mut all = self.kinds.iter().filter(fits);
        let first = all.next()?;
        let of_port = |kind: &&Kind| kind.ports.contains(&self.server_port);
        if of_port(&first) {
            return Some(first);
        }
        Some(all.find(of_port).unwrap_or(first))
    }
}

/// None where there is nothing to judge.
fn verdict(kind: &Kind, side: Side, held: &[u8]) -> Option<Verdict> {
    (!held.is_empty()).then(|| (kind.detect)(side, held))
}
