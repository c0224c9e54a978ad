//! Tables: columns as wide as their widest cell, two blanks between, nothing after the last.

use super::printable;

/// Rows below a heading.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row. An empty cell is shown as `-`, so that columns can be counted by a program too.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The table as text, each row a line.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let mut table = Table::new(&["REF", "SIZE", "AGE"]);
        table.row(["docker.io/library/alpine:latest", "3.4 MiB", "2h"].map(str::to_owned));
        table.row(["a", "", "now"].map(str::to_owned));
        let expected = "\
REF                              SIZE     AGE
docker.io/library/alpine:latest  3.4 MiB  2h
a                                -        now
";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_cell_cannot_break_its_line() {
        let mut table = Table::new(&["NAME"]);
        table.row(["evil\nname\u{1b}[31m".to_owned()]);
        assert_eq!(table.render().lines().count(), 2);
    }
}
