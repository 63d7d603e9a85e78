//! Puts one TOML document into another.

use toml_edit::{Item, Table, TableLike};

/// Above the position of any table that was read.
const LAST: isize = 1 << 24;

/// Puts `from` into `into`: tables are joined, lists of tables continued, other values replaced. New tables stand at the
/// end, so that nothing that was there moves.
pub(crate) fn merge(into: &mut Table, mut from: Table) {
    to_the_end(&mut from);
    join(into, from);
}

fn to_the_end(table: &mut Table) {
    table.set_position(table.position().map(|position| LAST + position));
    for (_, item) in table.iter_mut() {
        if let Some(table) = item.as_table_mut() {
            to_the_end(table);
        }
        for table in item.as_array_of_tables_mut().into_iter().flat_map(|list| list.iter_mut()) {
            to_the_end(table);
        }
    }
}

fn join(into: &mut dyn TableLike, from: Table) {
    let keys: Vec<_> = from.iter().map(|(key, _)| key.to_owned()).collect();
    let mut from = from;
    for key in keys {
        let Some((name, item)) = from.remove_entry(&key) else { continue };
        let item = match (into.get_mut(&key), item) {
            (Some(there), Item::Table(table)) if there.is_table_like() => {
                if let Some(there) = there.as_table_like_mut() {
                    join(there, table);
                }
                continue;
            }
            (Some(Item::ArrayOfTables(there)), Item::ArrayOfTables(more)) => {
                there.extend(more);
                continue;
            }
            (_, item) => item,
        };
        // A table that was written with dotted keys may not be continued by a header.
        let item = if into.is_dotted() {
            item.into_value().map_or_else(|item| item, Item::Value)
        } else {
            item
        };
        into.insert(&key, item);
        if let Some(mut there) = into.key_mut(&key) {
            *there.leaf_decor_mut() = name.leaf_decor().clone();
        }
    }
}
