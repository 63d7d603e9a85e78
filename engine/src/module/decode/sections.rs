//! One method for each section. The validator has seen it before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use cranelift_entity::EntityRef;
use wasmparser::{
    DataKind, DataSectionReader, ElementItems as Items, ElementKind, ElementSectionReader,
    ExportSectionReader, ExternalKind, FunctionSectionReader, GlobalSectionReader,
    ImportSectionReader, MemorySectionReader, TableInit, TableSectionReader, TagSectionReader,
    TypeRef, TypeSectionReader,
};

use super::{DecodeError, Decoder, const_expr, limit_count, types};
use crate::module::index::{FuncIndex, SigIndex, TypeIndex};
use crate::module::types::{CompositeType, HeapType, RefType, Signature, SubType};
use crate::module::{
    ConstExpr, ConstOp, DataMode, DataSegment, ElementItems, ElementMode, ElementSegment, Export,
    ExportIndex, Function, Import, ImportType, limits,
};

/// A typed index.
pub(super) fn index<I: EntityRef>(n: u32) -> I {
    I::new(n as usize)
}

impl<'a> Decoder<'a> {
    pub(super) fn types(&mut self, reader: TypeSectionReader<'a>) -> Result<(), DecodeError> {
        let mut known: HashMap<Signature, SigIndex> = HashMap::new();
        for group in reader {
            let group = group?;
            // Types of a group may name later ones of it.
            for ty in group.types() {
                self.kinds.push(types::kind(ty)?);
            }
            limit_count("types", self.kinds.len(), limits::TYPES as usize)?;
            for ty in group.types() {
                let ty = types::sub_type(&self.kinds, ty)?;
                self.push_type(ty, &mut known)?;
            }
            self.out.info.rec_groups.push(group.types().len() as u32);
        }
        Ok(())
    }

    fn push_type(
        &mut self,
        ty: SubType,
        known: &mut HashMap<Signature, SigIndex>,
    ) -> Result<(), DecodeError> {
        self.type_parts += match &ty.composite {
            CompositeType::Func(ty) => ty.params.len() + ty.results.len(),
            CompositeType::Struct(ty) => ty.fields.len(),
            CompositeType::Array(_) => 1,
        };
        let what = "parameters, results and fields in its types";
        limit_count(what, self.type_parts, limits::TYPE_PARTS)?;
        let info = &mut self.out.info;
        let signature = ty.as_func().map(|ty| match known.entry(ty.signature()) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let values = entry.key().params.len() + entry.key().results.len();
                self.signature_values += values * (values / 32).max(1);
                let signature = info.signatures.push(entry.key().clone());
                *entry.insert(signature)
            }
        });
        let what = "parameters and results in its distinct signatures";
        limit_count(what, self.signature_values, limits::SIGNATURE_VALUES)?;
        info.types.push(ty);
        info.type_signatures.push(signature);
        Ok(())
    }

    pub(super) fn imports(&mut self, reader: ImportSectionReader<'a>) -> Result<(), DecodeError> {
        for import in reader.into_imports() {
            let import = import?;
            let ty = match import.ty {
                TypeRef::Func(ty) => {
                    let ty = index(ty);
                    self.push_func(ty);
                    ImportType::Func(ty)
                }
                TypeRef::Table(ty) => {
                    let ty = types::table_type(&self.kinds, ty)?;
                    self.out.info.tables.push(ty);
                    ImportType::Table(ty)
                }
                TypeRef::Memory(ty) => {
                    let ty = types::memory_type(ty);
                    self.out.info.memories.push(ty);
                    ImportType::Memory(ty)
                }
                TypeRef::Global(ty) => {
                    let ty = types::global_type(&self.kinds, ty)?;
                    self.out.info.globals.push(ty);
                    ImportType::Global(ty)
                }
                TypeRef::Tag(ty) => {
                    let ty = index(ty.func_type_idx);
                    self.out.info.tags.push(ty);
                    ImportType::Tag(ty)
                }
                other @ TypeRef::FuncExact(_) => {
                    let message = format!("import of {other:?} is not supported");
                    return Err(DecodeError::Invalid { offset: 0, message });
                }
            };
            let (module, name) = (import.module.to_owned(), import.name.to_owned());
            self.out.info.imports.push(Import { module, name, ty });
        }
        let info = &mut self.out.info;
        info.imported.functions = info.functions.len() as u32;
        info.imported.tables = info.tables.len() as u32;
        info.imported.memories = info.memories.len() as u32;
        info.imported.globals = info.globals.len() as u32;
        info.imported.tags = info.tags.len() as u32;
        self.check_spaces()
    }

    /// The limits once more, for index spaces of imports and definitions together.
    fn check_spaces(&self) -> Result<(), DecodeError> {
        let info = &self.out.info;
        limit_count("functions", info.functions.len(), limits::FUNCTIONS as usize)?;
        limit_count("tables", info.tables.len(), limits::TABLES as usize)?;
        limit_count("memories", info.memories.len(), limits::MEMORIES as usize)?;
        limit_count("globals", info.globals.len(), limits::GLOBALS as usize)?;
        limit_count("tags", info.tags.len(), limits::TAGS as usize)
    }

    /// Adds a function of a type that the validator knows to be a function type.
    fn push_func(&mut self, ty: TypeIndex) {
        let signature = self.out.info.signature_at(ty);
        self.out.info.functions.push(Function { ty, signature, func_ref: None });
    }

    pub(super) fn functions(
        &mut self,
        reader: FunctionSectionReader<'a>,
    ) -> Result<(), DecodeError> {
        for ty in reader {
            self.push_func(index(ty?));
        }
        self.check_spaces()
    }

    pub(super) fn tables(&mut self, reader: TableSectionReader<'a>) -> Result<(), DecodeError> {
        for table in reader {
            let table = table?;
            let init = match table.init {
                TableInit::RefNull => None,
                TableInit::Expr(expr) => Some(self.const_expr(&expr)?),
            };
            self.out.info.tables.push(types::table_type(&self.kinds, table.ty)?);
            self.out.info.table_inits.push(init);
        }
        self.check_spaces()
    }

    pub(super) fn memories(&mut self, reader: MemorySectionReader<'a>) -> Result<(), DecodeError> {
        for memory in reader {
            self.out.info.memories.push(types::memory_type(memory?));
        }
        self.check_spaces()
    }

    pub(super) fn globals(&mut self, reader: GlobalSectionReader<'a>) -> Result<(), DecodeError> {
        for global in reader {
            let global = global?;
            let init = self.const_expr(&global.init_expr)?;
            self.out.info.globals.push(types::global_type(&self.kinds, global.ty)?);
            self.out.info.global_inits.push(init);
        }
        self.check_spaces()
    }

    pub(super) fn tags(&mut self, reader: TagSectionReader<'a>) -> Result<(), DecodeError> {
        for tag in reader {
            self.out.info.tags.push(index(tag?.func_type_idx));
        }
        self.check_spaces()
    }

    pub(super) fn exports(&mut self, reader: ExportSectionReader<'a>) -> Result<(), DecodeError> {
        for export in reader {
            let export = export?;
            let index = match export.kind {
                ExternalKind::Func => {
                    let func = index(export.index);
                    self.escaped.push(func);
                    ExportIndex::Func(func)
                }
                ExternalKind::Table => ExportIndex::Table(index(export.index)),
                ExternalKind::Memory => ExportIndex::Memory(index(export.index)),
                ExternalKind::Global => ExportIndex::Global(index(export.index)),
                ExternalKind::Tag => ExportIndex::Tag(index(export.index)),
                other @ ExternalKind::FuncExact => {
                    let message = format!("export of {other:?} is not supported");
                    return Err(DecodeError::Invalid { offset: 0, message });
                }
            };
            self.out.info.exports.push(Export { name: export.name.to_owned(), index });
        }
        Ok(())
    }

    pub(super) fn element_segments(
        &mut self,
        reader: ElementSectionReader<'a>,
    ) -> Result<(), DecodeError> {
        for segment in reader {
            let segment = segment?;
            let mode = match &segment.kind {
                ElementKind::Passive => ElementMode::Passive,
                ElementKind::Declared => ElementMode::Declared,
                ElementKind::Active { table_index, offset_expr } => ElementMode::Active {
                    table: index(table_index.unwrap_or(0)),
                    offset: self.const_expr(offset_expr)?,
                },
            };
            let (ty, items) = self.element_items(segment.items)?;
            self.out.info.elements.push(ElementSegment { mode, ty, items });
        }
        Ok(())
    }

    fn element_items(&mut self, items: Items<'a>) -> Result<(RefType, ElementItems), DecodeError> {
        match items {
            Items::Functions(reader) => {
                self.count_elements(reader.count())?;
                let funcs = reader
                    .into_iter()
                    .map(|func| func.map(index::<FuncIndex>))
                    .collect::<Result<Vec<_>, _>>()?;
                self.escaped.extend_from_slice(&funcs);
                let ty = RefType { nullable: true, heap: HeapType::Func };
                Ok((ty, ElementItems::Functions(funcs)))
            }
            Items::Expressions(ty, reader) => {
                self.count_elements(reader.count())?;
                let exprs = reader
                    .into_iter()
                    .map(|expr| self.const_expr(&expr?))
                    .collect::<Result<Vec<_>, _>>()?;
                let ty = types::ref_type(&self.kinds, ty)?;
                let items = if ty.heap.is_func() {
                    shorten(exprs)
                } else {
                    ElementItems::Expressions(exprs)
                };
                Ok((ty, items))
            }
        }
    }

    fn count_elements(&mut self, count: u32) -> Result<(), DecodeError> {
        self.elements += count as usize;
        limit_count("elements in its element segments", self.elements, limits::ELEMENTS)
    }

    pub(super) fn data_segments(
        &mut self,
        reader: DataSectionReader<'a>,
    ) -> Result<(), DecodeError> {
        for segment in reader {
            let segment = segment?;
            let mode = match &segment.kind {
                DataKind::Passive => DataMode::Passive,
                DataKind::Active { memory_index, offset_expr } => DataMode::Active {
                    memory: index(*memory_index),
                    offset: self.const_expr(offset_expr)?,
                },
            };
            let len = segment.data.len() as u64;
            self.out.info.data.push(DataSegment { mode, offset: 0, len });
            self.out.data.push(segment.data);
        }
        Ok(())
    }

    /// Decodes a constant expression and notes the functions it makes references to.
    fn const_expr(&mut self, expr: &wasmparser::ConstExpr<'a>) -> Result<ConstExpr, DecodeError> {
        let expr = const_expr::decode(expr)?;
        self.const_operators += expr.ops.len();
        let (count, limit) = (self.const_operators, limits::CONST_OPERATORS_TOTAL);
        limit_count("operators in its constant expressions", count, limit)?;
        for op in &expr.ops {
            if let ConstOp::RefFunc(func) = op {
                self.escaped.push(*func);
            }
        }
        Ok(expr)
    }
}

/// The short form of elements that are all plain functions.
fn shorten(exprs: Vec<ConstExpr>) -> ElementItems {
    let funcs = exprs.iter().map(|expr| match expr.ops[..] {
        [ConstOp::RefFunc(func)] => Some(func),
        _ => None,
    });
    match funcs.collect() {
        Some(funcs) => ElementItems::Functions(funcs),
        None => ElementItems::Expressions(exprs),
    }
}
