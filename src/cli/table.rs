//! Tables on the terminal: columns below a header, without lines.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// An empty table that wraps its cells to the width of the terminal.
pub(super) fn wrapped<const N: usize>(header: [&str; N]) -> Table {
    let mut table = plain(header);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// An empty table as wide as its cells.
pub(super) fn plain<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    table
}

pub(super) fn align_right(table: &mut Table, columns: &[usize]) {
    for &index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
