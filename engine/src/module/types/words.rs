//! Types in words, in the text format's manner: for messages and reports.

use std::fmt::{Display, Formatter, Result};

use super::{FuncType, GlobalType, HeapType, RefType, ValType};

impl<C: Display> Display for ValType<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            ValType::I32 => f.write_str("i32"),
            ValType::I64 => f.write_str("i64"),
            ValType::F32 => f.write_str("f32"),
            ValType::F64 => f.write_str("f64"),
            ValType::V128 => f.write_str("v128"),
            ValType::Ref(ty) => ty.fmt(f),
        }
    }
}

impl<C: Display> Display for RefType<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let short = match &self.heap {
            _ if !self.nullable => None,
            HeapType::Func => Some("funcref"),
            HeapType::NoFunc => Some("nullfuncref"),
            HeapType::Extern => Some("externref"),
            HeapType::NoExtern => Some("nullexternref"),
            HeapType::Any => Some("anyref"),
            HeapType::Eq => Some("eqref"),
            HeapType::I31 => Some("i31ref"),
            HeapType::Struct => Some("structref"),
            HeapType::Array => Some("arrayref"),
            HeapType::None => Some("nullref"),
            HeapType::Exn => Some("exnref"),
            HeapType::NoExn => Some("nullexnref"),
            _ => None,
        };
        match short {
            Some(short) => f.write_str(short),
            None if self.nullable => write!(f, "(ref null {})", self.heap),
            None => write!(f, "(ref {})", self.heap),
        }
    }
}

impl<C: Display> Display for HeapType<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            HeapType::Func => "func",
            HeapType::NoFunc => "nofunc",
            HeapType::Extern => "extern",
            HeapType::NoExtern => "noextern",
            HeapType::Any => "any",
            HeapType::Eq => "eq",
            HeapType::I31 => "i31",
            HeapType::Struct => "struct",
            HeapType::Array => "array",
            HeapType::None => "none",
            HeapType::Exn => "exn",
            HeapType::NoExn => "noexn",
            HeapType::ConcreteFunc(ty)
            | HeapType::ConcreteStruct(ty)
            | HeapType::ConcreteArray(ty) => return ty.fmt(f),
        })
    }
}

/// Parameters and results, as in `(i32, i64) -> (funcref)`.
impl<C: Display> Display for FuncType<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        list(f, &self.params)?;
        f.write_str(" -> ")?;
        list(f, &self.results)
    }
}

fn list<C: Display>(f: &mut Formatter<'_>, types: &[ValType<C>]) -> Result {
    f.write_str("(")?;
    for (n, ty) in types.iter().enumerate() {
        if n > 0 {
            f.write_str(", ")?;
        }
        ty.fmt(f)?;
    }
    f.write_str(")")
}

impl<C: Display> Display for GlobalType<C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mutability = if self.mutable { "mutable" } else { "immutable" };
        write!(f, "{mutability} global of type {}", self.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::index::TypeIndex;

    #[test]
    fn types_read_as_in_the_text_format() {
        let reference = |nullable, heap| ValType::Ref(RefType { nullable, heap });
        let concrete = HeapType::ConcreteFunc(TypeIndex::from_u32(3));
        let ty = FuncType {
            params: vec![ValType::I32, ValType::FUNCREF, reference(true, concrete)],
            results: vec![reference(false, concrete), reference(false, HeapType::NoExtern)],
        };
        let expected = "(i32, funcref, (ref null type3)) -> ((ref type3), (ref noextern))";
        assert_eq!(ty.to_string(), expected);
    }
}
