//! `spike fault`: arms, shows and removes faults.

mod describe;
mod log;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::describe::sentence;
use super::{
    client::Client,
    human::millis_left,
    output::{print, print_json},
    table::{Column, Table},
};
use crate::model::{
    fault_words::FaultWords,
    view::{AuditList, FaultList, FaultView, FaultsRemoved},
};

#[derive(Debug, Args)]
pub(super) struct FaultArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long, global = true, display_order = 1000)]
    json: bool,
    #[command(subcommand)]
    verb: FaultVerb,
}

#[derive(Debug, Subcommand)]
enum FaultVerb {
    /// Arm a fault; it is in force when this returns
    Add {
        #[command(flatten)]
        words: FaultWords,
    },
    /// Change an armed fault: its effect, and what else is said; connections that it has take it on at once
    Change {
        /// Its name
        #[arg(value_name = "FAULT")]
        fault: String,
        #[command(flatten)]
        words: FaultWords,
    },
    /// Show who armed what, what it hit, and when and why it ended
    Log {
        /// How many entries, counted from the last
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        last: usize,
    },
    /// Show the armed faults and what became of the calls that they chose
    List,
    /// Remove faults
    Remove {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove all faults
    Clear,
}

pub(super) async fn run(args: FaultArgs) -> Result<()> {
    let FaultArgs { client, json, verb } = args;
    match verb {
        FaultVerb::Add { words } => {
            let view: FaultView = client.post("/v1/faults", &words.to_raw()?).await?;
            if json {
                print_json(&view)
            } else {
                print(format_args!("armed {}\n", sentence(&view)))
            }
        }
        FaultVerb::Change { fault, words } => {
            let mut patch = serde_json::to_value(words.to_raw()?)?;
            if let Some(name) = patch.as_object_mut().and_then(|fields| fields.remove("name")) {
                anyhow::bail!("{name}: a name cannot be changed; remove the fault and add another");
            }
            let view: FaultView = client.patch(&fault_path(&fault), &patch).await?;
            if json {
                print_json(&view)
            } else {
                print(format_args!("changed {}\n", sentence(&view)))
            }
        }
        FaultVerb::Log { last } => {
            let list: AuditList = client.get(&format!("/v1/audit?last={last}")).await?;
            if json {
                print_json(&list)
            } else {
                print(log::table(&list.entries))
            }
        }
        FaultVerb::List => {
            let list: FaultList = client.get("/v1/faults").await?;
            if json {
                print_json(&list)
            } else {
                print(table(&list.faults))
            }
        }
        FaultVerb::Remove { names } => remove(&client, json, &names).await,
        FaultVerb::Clear => {
            let gone: FaultsRemoved = client.delete("/v1/faults").await?;
            if json {
                print_json(&gone)
            } else {
                print(format_args!("{} faults removed\n", gone.removed.len()))
            }
        }
    }
}

/// Removes all that can be, and tells the first that could not.
async fn remove(client: &Client, json: bool, names: &[String]) -> Result<()> {
    let mut removed = Vec::new();
    let mut failure = Ok(());
    for name in names {
        match client.delete::<FaultView>(&fault_path(name)).await {
            Ok(view) => removed.push(view),
            Err(error) => failure = failure.and(Err(error)),
        }
    }
    if json {
        print_json(&FaultList { faults: removed })?;
    } else {
        for view in &removed {
            let FaultView {
                name,
                matched,
                affected,
                escaped,
                ..
            } = view;
            print(format_args!(
                "removed {name}: {matched} matched, {affected} affected, {escaped} escaped\n"
            ))?;
        }
    }
    Ok(failure?)
}

/// The API's path of a fault, whatever its name is.
pub(super) fn fault_path(name: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    format!("/v1/faults/{escaped}")
}

fn table(faults: &[FaultView]) -> Table {
    let mut table = Table::new([
        Column::Text("NAME"),
        Column::Text("EFFECT"),
        Column::Text("FROM"),
        Column::Text("TO"),
        Column::Number("PERCENT"),
        Column::Number("SEED"),
        Column::Number("EXPIRES"),
        Column::Number("MATCHED"),
        Column::Number("AFFECTED"),
        Column::Number("ESCAPED"),
        Column::Number("ACTIVE"),
        Column::Text("NOTE"),
    ]);
    for view in faults {
        table.row([
            view.name.clone(),
            describe::effects(&view.fault),
            describe::from(&view.fault),
            describe::to(&view.fault),
            view.fault.percent.unwrap_or(100.0).to_string(),
            view.seed.to_string(),
            millis_left(view.expires_in_ms),
            view.matched.to_string(),
            view.affected.to_string(),
            view.escaped.to_string(),
            view.active.to_string(),
            view.note.clone().unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(fault_path("a-1._"), "/v1/faults/a-1._");
        assert_eq!(fault_path("../x?y é"), "/v1/faults/..%2Fx%3Fy%20%C3%A9");
    }
}
