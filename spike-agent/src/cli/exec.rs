//! `spike exec`: runs a command with faults and a capture that touch it and its children alone.

mod child;
mod signals;

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::task::JoinHandle;

use self::{child::Waiting, signals::Signals};
use super::{
    block_on,
    client::{Client, ClientError},
    fault::fault_path,
    output::note,
    record::{absolute_path, redaction_rules, summary},
    recorder::{Recorder, Summary, Target, stop},
    replay::{StubWords, report},
};
use crate::model::{
    RawCapture, RawEnd, RawExec, RawFault, RawRecording, RawStub,
    fault_words::FaultWords,
    view::{ExecView, FaultView, MissList, RecordingView, StubView},
};

/// How long the packets that a command sent last may take to reach the capture.
const LAST_PACKETS: Duration = Duration::from_millis(200);
/// How long the capture may take to end after that.
const LAST_PIECES: Duration = Duration::from_secs(5);

/// Exit status of a strict command that succeeded although some of its calls were not recorded.
const MISSED: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    client: Client,
    /// Fault in the words of `spike fault add`, such as 'latency --delay 200ms --to port=8080'; may be given several
    /// times
    #[arg(long = "fault", value_name = "WORDS")]
    faults: Vec<String>,
    /// Write the command's packets to this pcapng file
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Record the command's calls to this file, which must not exist yet
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// With --record: what else is a secret, as for `spike record start`
    #[arg(long, value_name = "RULES", value_delimiter = ',', requires = "record")]
    redact: Vec<String>,
    /// Answer the command's calls to recorded servers from this recording; may be given several times
    #[arg(long = "stub", value_name = "FILE")]
    stubs: Vec<PathBuf>,
    #[command(flatten, next_help_heading = "Stubs")]
    stub_words: StubWords,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn run(args: ExecArgs) -> Result<ExitCode> {
    if args.capture.as_deref() == Some(Path::new("-")) {
        bail!("--capture -: standard output is the command's; name a file");
    }
    let faults = args
        .faults
        .iter()
        .map(|words| read_fault(words))
        .collect::<Result<Vec<_>>>()?;
    // Before any thread is started, for threads inherit which signals are blocked.
    let signals = signals::block().context("take over the signals")?;
    block_on(run_with(args, faults, signals))
}

fn read_fault(words: &str) -> Result<RawFault> {
    let fault = FaultWords::parse_str(words)
        .with_context(|| format!("--fault '{words}'"))?
        .to_raw()?;
    if fault.from.cgroup.is_some() {
        bail!("--fault '{words}': from.cgroup: the command gets a cgroup of its own; leave it out");
    }
    Ok(fault)
}

async fn run_with(args: ExecArgs, faults: Vec<RawFault>, signals: Signals) -> Result<ExitCode> {
    // The agent is asked first: without it, nothing is started.
    args.client.get::<serde_json::Value>("/v1/status").await?;
    let mask = signals.mask_before();
    let signals = signals.listen().context("watch the signals")?;
    let waiting = Waiting::start(&args.command, mask).context("start a process for the command")?;
    let pid = waiting.pid();
    let exec: ExecView = args.client.post("/v1/exec", &RawExec { pid }).await?;
    let scope = Scope {
        client: args.client.clone(),
        exec,
    };
    let record = args.record.as_deref().map(|path| recording(path, &args.redact));
    let record = match record.transpose() {
        Ok(record) => record,
        Err(error) => {
            let _ = scope.end().await;
            return Err(error);
        }
    };
    let stubs = scope.stub(&args.stubs, &args.stub_words).await;
    let armed = scope.arm(faults, args.capture, record).await;
    let ((faults, recording, calls), stubs) = match armed.and_then(|armed| Ok((armed, stubs?))) {
        Ok(armed) => armed,
        Err(error) => {
            let _ = scope.end().await;
            return Err(error);
        }
    };
    let status = match waiting.release() {
        Ok(child) => Ok(child.wait(&signals).await.context("wait for the command")?),
        Err(error) => Err(error),
    };
    // From here on, the command's own status is what counts; what goes wrong is only told.
    let told = |result: Result<()>| result.unwrap_or_else(|error| note(format_args!("{error:#}")));
    told(scope.report(&faults).await);
    let missed = scope.report_stubs(&stubs).await;
    if let Some(recording) = recording {
        told(recording.finish(&scope.client).await);
    }
    if let Some(id) = calls {
        told(scope.finish_recording(&id).await);
    }
    told(scope.end().await.map_err(Into::into));
    Ok(match status {
        // The command did not notice; who is strict wants to know.
        Ok(status) if status.success() && args.stub_words.strict && missed > 0 => ExitCode::from(MISSED),
        Ok(status) => exit_code(status),
        Err(error) => {
            let name = args
                .command
                .first()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            note(format_args!("run `{name}`: {error}"));
            // As env(1) has it.
            ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound {
                127
            } else {
                126
            })
        }
    })
}

/// The command's status; 128+n when signal n ended it, as a shell has it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// The recording of the command's calls, before its cgroup is known.
fn recording(path: &Path, redact: &[String]) -> Result<RawRecording> {
    Ok(RawRecording {
        output: Some(absolute_path(path)?),
        redact: redaction_rules(redact)?,
        ..RawRecording::default()
    })
}

/// The command's cgroup, as the agent knows it.
struct Scope {
    client: Client,
    exec: ExecView,
}

impl Scope {
    /// Puts faults and capture in force, for this cgroup alone.
    async fn arm(
        &self,
        faults: Vec<RawFault>,
        capture: Option<PathBuf>,
        record: Option<RawRecording>,
    ) -> Result<(Vec<String>, Option<Recording>, Option<String>)> {
        let within = |from: RawEnd| RawEnd {
            cgroup: Some(self.exec.cgroup.clone()),
            ..from
        };
        let recording = match capture {
            Some(output) => {
                let request = RawCapture {
                    from: within(RawEnd::default()),
                    ..RawCapture::default()
                };
                let recorder = Recorder::start(&self.client, &request, Target::file(output)).await?;
                let id = recorder.id().to_owned();
                Some(Recording {
                    id,
                    writing: tokio::spawn(recorder.write_all()),
                })
            }
            None => None,
        };
        let calls = match record {
            Some(record) => {
                let request = RawRecording {
                    from: within(record.from.clone()),
                    ..record
                };
                Some(
                    self.client
                        .post::<RecordingView>("/v1/recordings", &request)
                        .await?
                        .id,
                )
            }
            None => None,
        };
        let mut names = Vec::new();
        for fault in faults {
            // The cgroup narrows it: `everything` means everything of the command.
            let fault = RawFault {
                from: within(fault.from.clone()),
                everything: false,
                ..fault
            };
            names.push(self.client.post::<FaultView>("/v1/faults", &fault).await?.name);
        }
        Ok((names, recording, calls))
    }

    /// Ends the recording of the command's calls.
    async fn finish_recording(&self, id: &str) -> Result<()> {
        let path = format!("/v1/recordings/{id}/stop");
        let view: RecordingView = self.client.post(&path, &()).await?;
        note(format_args!("recorded {}", summary(&view)));
        Ok(())
    }

    /// Tells of faults that did nothing.
    async fn report(&self, faults: &[String]) -> Result<()> {
        for name in faults {
            match self.client.get::<FaultView>(&fault_path(name)).await {
                Ok(FaultView {
                    note: Some(remark), ..
                }) => note(format_args!("fault {name}: {remark}")),
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    note(format_args!(
                        "fault {name} was removed or expired before the command ended"
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Has recordings answer the command's calls; gives the stubs' names.
    async fn stub(&self, files: &[PathBuf], words: &StubWords) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for file in files {
            let request = RawStub {
                from: RawEnd {
                    cgroup: Some(self.exec.cgroup.clone()),
                    ..RawEnd::default()
                },
                ttl: Some("24h".to_owned()),
                ..words.to_raw(file)?
            };
            let view: StubView = self.client.post("/v1/replays", &request).await?;
            for why in &view.left_out {
                note(format_args!("{}: not replayed: {why}", file.display()));
            }
            names.push(view.name);
        }
        Ok(names)
    }

    /// Tells what stubs were asked in vain; gives how many requests that were.
    async fn report_stubs(&self, names: &[String]) -> u64 {
        let mut missed = 0;
        for name in names {
            let path = format!("/v1/replays/{name}");
            let view = self.client.get::<StubView>(&path).await;
            let misses = self.client.get::<MissList>(&format!("{path}/misses")).await;
            match (view, misses) {
                (Ok(view), Ok(misses)) => {
                    missed += view.missed;
                    if view.missed > 0 {
                        report(&view, &misses);
                    }
                }
                (Err(error), _) | (_, Err(error)) => note(format_args!("stub {name}: {error}")),
            }
        }
        missed
    }

    /// Takes faults, captures, stubs and the cgroup away.
    async fn end(&self) -> Result<(), ClientError> {
        self.client
            .delete::<()>(&format!("/v1/exec/{}", self.exec.id))
            .await
    }
}

/// The capture of the command's packets.
struct Recording {
    id: String,
    writing: JoinHandle<Result<Summary>>,
}

impl Recording {
    async fn finish(self, client: &Client) -> Result<()> {
        tokio::time::sleep(LAST_PACKETS).await;
        if !self.writing.is_finished() {
            stop(client, &self.id).await?;
        }
        let ended = tokio::time::timeout(LAST_PIECES, self.writing).await;
        note(
            ended
                .context("the last packets did not arrive in time")?
                .context("write the capture")??,
        );
        Ok(())
    }
}
