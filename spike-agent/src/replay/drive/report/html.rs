//! The report as one page that needs nothing else: no script, no other file.

use super::{Quantiles, Report, chart, junit::escaped};

/// Wrong calls that are shown.
const SHOWN_LIMIT: usize = 500;

const STYLE: &str = "body{font:15px/1.4 sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#1c1f24}\
    table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd}\
    td:first-child,th:first-child{text-align:left;word-break:break-all}pre{background:#f4f5f7;padding:.6em;white-space:pre-wrap}\
    .wrong{color:#c6372c}.good{color:#1a7f37}";

/// The report as a page.
pub fn html(report: &Report) -> String {
    let verdict = if report.is_same() {
        "<p class=\"good\">Every answer is as recorded.</p>"
    } else {
        "<p class=\"wrong\">Not every answer is as recorded.</p>"
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>spike replay drive {0}</title>\
         <style>{STYLE}</style></head><body>\n<h1>Recorded requests to {0}</h1>\n{verdict}\n\
         <p>{1} requests in {2:.1} s: {3} answered as recorded, {4} otherwise, {5} not.</p>\n",
        escaped(&report.target),
        report.requests,
        report.took_ms / 1e3,
        report.same,
        report.different,
        report.failed
    );
    page += "<table><tr><th>in milliseconds</th><th>p50</th><th>p90</th><th>p99</th><th>max</th></tr>\n";
    for (name, quantiles) in [
        ("first byte", &report.latency_ms),
        ("first byte in the recording", &report.recorded_latency_ms),
        ("sent late", &report.late_ms),
    ] {
        page += &row(name, quantiles);
    }
    page += "</table>\n<h2>Latency</h2>\n";
    page += &chart::spread(report);
    page += &chart::over_time(report);
    page += "<h2>Calls</h2>\n<table><tr><th>kind</th><th>requests</th><th>wrong</th><th>p50</th><th>recorded</th>\
             <th>p99</th><th>recorded</th></tr>\n";
    for kind in &report.kinds {
        page += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td></tr>\n",
            escaped(&kind.kind),
            kind.requests,
            kind.wrong,
            kind.latency_ms.p50,
            kind.recorded_latency_ms.p50,
            kind.latency_ms.p99,
            kind.recorded_latency_ms.p99
        );
    }
    page += "</table>\n";
    if !report.is_same() {
        page += "<h2>What differs</h2>\n";
    }
    for call in report.wrong().take(SHOWN_LIMIT) {
        let words: Vec<&str> = call
            .differences
            .iter()
            .chain(&call.error)
            .map(String::as_str)
            .collect();
        page += &format!(
            "<h3>{} (request {})</h3>\n<pre>{}</pre>\n",
            escaped(&call.call),
            call.number + 1,
            escaped(&words.join("\n"))
        );
    }
    for why in &report.left_out {
        page += &format!("<p>Not sent: {}</p>\n", escaped(why));
    }
    page + "</body></html>\n"
}

fn row(name: &str, quantiles: &Quantiles) -> String {
    let Quantiles { p50, p90, p99, max } = quantiles;
    format!("<tr><td>{name}</td><td>{p50:.2}</td><td>{p90:.2}</td><td>{p99:.2}</td><td>{max:.2}</td></tr>\n")
}
