//! Shows, restarts and ends stubs.

use anyhow::Result;

use super::{
    super::{
        client::Client,
        human::millis_left,
        output::{print, print_json},
        table::{Column, Table},
    },
    stub_path,
};
use crate::model::view::{MissList, StubList, StubView};

pub(super) async fn list(client: &Client, json: bool) -> Result<()> {
    let list: StubList = client.get("/v1/replays").await?;
    if json {
        return print_json(&list);
    }
    let mut table = Table::new([
        Column::Text("NAME"),
        Column::Text("FILE"),
        Column::Text("SERVERS"),
        Column::Number("LEFT"),
        Column::Number("CONNECTIONS"),
        Column::Number("ANSWERED"),
        Column::Number("MISSED"),
        Column::Number("PASSED"),
    ]);
    for view in &list.replays {
        let servers = view.servers.iter().map(|server| server.server.as_str());
        table.row([
            view.name.clone(),
            view.file.clone(),
            servers.collect::<Vec<_>>().join(","),
            millis_left(view.expires_in_ms),
            view.connections.to_string(),
            view.answered.to_string(),
            view.missed.to_string(),
            view.passed.to_string(),
        ]);
    }
    print(table)
}

pub(super) async fn misses(client: &Client, json: bool, name: &str) -> Result<()> {
    let list: MissList = client.get(&format!("{}/misses", stub_path(name))).await?;
    if json {
        return print_json(&list);
    }
    for miss in &list.misses {
        print(format_args!("{}x {}: {}\n", miss.count, miss.server, miss.text))?;
    }
    Ok(())
}

pub(super) async fn restart(client: &Client, json: bool, name: &str) -> Result<()> {
    let view: StubView = client.post(&format!("{}/restart", stub_path(name)), &()).await?;
    if json {
        return print_json(&view);
    }
    print(format_args!("{name} begins again\n"))
}

pub(super) async fn stop(client: &Client, json: bool, names: &[String]) -> Result<()> {
    for name in names {
        let view: StubView = client.delete(&stub_path(name)).await?;
        if json {
            print_json(&view)?;
        } else {
            print(format_args!(
                "ended {name}: {} answered, {} missed\n",
                view.answered, view.missed
            ))?;
        }
    }
    Ok(())
}
