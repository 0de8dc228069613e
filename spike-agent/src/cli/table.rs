//! Prints rows with aligned columns.

use std::fmt;

/// A table for people; cells come from anywhere and are stripped of control characters.
pub(super) struct Table {
    header: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// The head of a column.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Text, to the left.
    Text(&'static str),
    /// Numbers, to the right.
    Number(&'static str),
}

impl Table {
    pub(super) fn new(header: impl Into<Vec<Column>>) -> Self {
        Self {
            header: header.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each column.
    pub(super) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let printable = |cell: String| -> String {
            cell.chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect()
        };
        self.rows.push(cells.into().into_iter().map(printable).collect());
    }
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Text(name) | Self::Number(name) => name,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width_of = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .header
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells
                    .map(|cell| width_of(cell))
                    .chain([width_of(column.name())])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let names: Vec<String> = self
            .header
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.header).zip(&widths) {
                line += &match column {
                    Column::Text(_) => format!("{cell:<width$}  "),
                    Column::Number(_) => format!("{cell:>width$}  "),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_harmless() {
        let mut table = Table::new([Column::Text("NAME"), Column::Number("N"), Column::Text("X")]);
        table.row(["é\u{1b}[2J".to_owned(), "12".to_owned(), String::new()]);
        table.row(["longer".to_owned(), "3".to_owned(), "y".to_owned()]);
        assert_eq!(table.to_string(), "NAME     N  X\né?[2J   12\nlonger   3  y\n");
    }
}
