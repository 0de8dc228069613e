//! `spike top`: the edges of the map live, one of them in detail, and a fault on it.

mod draw;
mod heat;
mod state;
#[cfg(test)]
mod tests;

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use self::state::{Action, State};
use super::{calls::Events, client::Client, fault::fault_path};
use crate::model::{
    fault_words::{FaultWords, edge_words},
    view::{CallView, EdgeDetailView, EdgeHistoryView, FaultList, FaultView, GraphView},
};

/// How often the screen is made anew.
const PERIOD: Duration = Duration::from_secs(1);
/// How far back the numbers of the list go: the last one or two steps of the history.
const WINDOW: &str = "10s";
/// A fault that is armed here ends by itself after this, and when this command ends.
const TTL: &str = "10m";

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    client: Client,
}

/// What comes in from beside.
enum Input {
    Terminal(Event),
    Call(Box<CallView>),
}

pub(super) async fn run(args: TopArgs) -> Result<()> {
    if !stdout().is_terminal() {
        bail!(
            "spike top draws on a terminal, which this is not; for programs there is spike map --watch --json"
        );
    }
    let mut state = State::default();
    // Before the screen is taken over, so that an agent that is not there is told in plain words.
    refresh(&args.client, &mut state).await?;
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let outcome = live(&args.client, &mut terminal, &mut state).await;
    ratatui::restore();
    for name in std::mem::take(&mut state.armed).into_values() {
        // It may have ended by itself.
        _ = args.client.delete::<FaultView>(&fault_path(&name)).await;
    }
    outcome
}

async fn live(client: &Client, terminal: &mut ratatui::DefaultTerminal, state: &mut State) -> Result<()> {
    // `terminal, agent --Input--> screen`
    let (input_tx, mut input) = mpsc::channel(256);
    let keys_tx = input_tx.clone();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if keys_tx.blocking_send(Input::Terminal(event)).is_err() {
                return;
            }
        }
    });
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut following: Option<AbortHandle> = None;
    loop {
        terminal.draw(|frame| draw::draw(frame, state))?;
        let action = tokio::select! {
            _ = ticks.tick() => {
                if let Err(error) = refresh(client, state).await {
                    state.note = format!("{error:#}");
                }
                continue;
            }
            Some(found) = input.recv() => match found {
                Input::Terminal(Event::Key(key)) if key.kind == KeyEventKind::Press => state.key(key),
                Input::Terminal(_) => continue,
                Input::Call(call) => {
                    state.call(*call);
                    continue;
                }
            },
        };
        match action {
            Action::None => {}
            Action::Quit => return Ok(()),
            Action::Open(id) => {
                let follower = tokio::spawn(follow(client.clone(), id, input_tx.clone()));
                following = Some(follower.abort_handle());
                state.note = match look(client, state).await {
                    Ok(()) => String::new(),
                    Err(error) => format!("{error:#}"),
                };
            }
            Action::Close => {
                if let Some(follower) = following.take() {
                    follower.abort();
                }
            }
            Action::Arm { id, delay } => {
                state.note = match arm(client, &id, &delay).await {
                    Ok(name) => {
                        let note = format!("armed {name}: {delay} on each answer, for {TTL}");
                        state.armed.insert(id, name);
                        note
                    }
                    Err(error) => format!("{error:#}"),
                };
            }
            Action::End { id } => {
                if let Some(name) = state.armed.remove(&id) {
                    state.note = match client.delete::<FaultView>(&fault_path(&name)).await {
                        Ok(view) => format!("ended {name}: {} calls affected", view.affected),
                        Err(error) => format!("{error:#}"),
                    };
                }
            }
        }
    }
}

/// Reads the list, the faults and what is open.
async fn refresh(client: &Client, state: &mut State) -> Result<()> {
    let graph = client
        .get(&format!("/v1/map/graph?group=process&since={WINDOW}"))
        .await;
    let graph: GraphView = match graph {
        Ok(graph) => graph,
        // Without a history, all since the agent's start is better than nothing.
        Err(super::client::ClientError::Refused(_)) => client.get("/v1/map/graph?group=process").await?,
        Err(error) => return Err(error.into()),
    };
    state.update(graph);
    let faults: FaultList = client.get("/v1/faults").await?;
    state
        .armed
        .retain(|_, name| faults.faults.iter().any(|fault| fault.name == *name));
    look(client, state).await
}

/// Reads the past of the edge that is open.
async fn look(client: &Client, state: &mut State) -> Result<()> {
    let Some(open) = &mut state.open else {
        return Ok(());
    };
    let history: EdgeHistoryView = client
        .get(&format!("/v1/edges/{}/history?since=10m", open.id))
        .await?;
    open.steps = history.steps;
    Ok(())
}

/// Arms a delay on one edge; gives the fault's name.
async fn arm(client: &Client, id: &str, delay: &str) -> Result<String> {
    let detail: EdgeDetailView = client.get(&format!("/v1/edges/{id}")).await?;
    let words = edge_words(&detail.edge);
    let line = format!(
        "latency --delay {} {words} --ttl {TTL} --name top-{id}",
        shlex::try_quote(delay)?
    );
    let raw = FaultWords::parse_str(&line)?.to_raw()?;
    let view: FaultView = client.post("/v1/faults", &raw).await?;
    Ok(view.name)
}

/// Follows the calls of one edge.
async fn follow(client: Client, id: String, input_tx: mpsc::Sender<Input>) {
    let find = format!("edge={id}");
    let find = percent_encode(find.as_bytes(), NON_ALPHANUMERIC);
    let Ok(mut body) = client.stream(&format!("/v1/calls?find={find}")).await else {
        return;
    };
    let mut events = Events::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for (name, data) in events.read(&data) {
            if name == "call"
                && let Ok(call) = serde_json::from_str(&data)
                && input_tx.send(Input::Call(call)).await.is_err()
            {
                return;
            }
        }
    }
}
