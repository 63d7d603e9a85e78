//! `Linker`: names to definitions, matched against a module's imports.

use std::borrow::Cow;
use std::rc::Rc;

use super::code::Module;
use super::engine::Engine;
use super::host::{self, Caller, HostError, HostFunc, IntoHostFunc};
use super::instance::{Extern, Instance};
use super::instantiate::{InstantiateError, Resolved, check_addressing, instantiate};
use super::store::{AsStore, StoreId, StoreInner, get, get_mut};
use super::types::{ExternType, FuncType};
use super::val::Val;
use crate::module::{Import, ImportType};

type Name = Cow<'static, str>;

/// Definitions by module and name, from which modules are instantiated: core specification,
/// "Instantiation". A later definition of a name replaces an earlier one.
///
/// Definitions are kept in an array: the few imports of a program are found faster by comparing
/// than a map of all definitions is built.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use coracle_engine::{compile::compile, config::Settings};
/// use coracle_engine::runtime::{Caller, Engine, Linker, Module, Store};
/// let wat = r#"(module
///     (import "host" "add" (func $add (param i32)))
///     (func (export "run") (call $add (i32.const 40)) (call $add (i32.const 2))))"#;
/// let engine = Engine::new();
/// let module = Module::from_bytes(&engine, &compile(&wat::parse_str(wat)?, &Settings::default())?)?;
/// let sum = Rc::new(Cell::new(0));
/// let mut linker = Linker::new(&engine);
/// let inner = Rc::clone(&sum);
/// linker.func_wrap("host", "add", move |_: Caller<'_>, n: i32| inner.set(inner.get() + n));
/// let mut store = Store::new(&engine)?;
/// let instance = linker.instantiate(&mut store, &module)?;
/// instance.func(&store, "run").ok_or("no run")?.invoke(&mut store, &[])?;
/// assert_eq!(sum.get(), 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Linker {
    engine: Engine,
    definitions: Vec<Definition>,
}

#[derive(Clone, Debug)]
enum Definition {
    Host(Name, Name, Rc<HostFunc>),
    Extern(Name, Name, Extern),
    Instance(Name, Instance),
}

impl Linker {
    /// A linker without any definition.
    #[must_use]
    pub fn new(engine: &Engine) -> Linker {
        Linker { engine: engine.clone(), definitions: Vec::new() }
    }

    /// Defines a host function: a closure `Fn(Caller<'_>, args…) -> result` of up to twelve
    /// [values](super::WasmValue). The result is nothing, a value, a tuple of up to four, or a
    /// `Result` of these, whose error ends the guest's call.
    pub fn func_wrap<Args, R>(
        &mut self,
        module: impl Into<Name>,
        name: impl Into<Name>,
        func: impl IntoHostFunc<Args, R>,
    ) -> &mut Linker {
        let func = host::host_func(func);
        self.definitions.push(Definition::Host(module.into(), name.into(), func));
        self
    }

    /// Defines a host function of any type; see [`Func::new`](super::Func::new).
    pub fn func_new(
        &mut self,
        module: impl Into<Name>,
        name: impl Into<Name>,
        ty: FuncType,
        func: impl Fn(Caller<'_>, &[Val], &mut [Val]) -> Result<(), HostError> + 'static,
    ) -> &mut Linker {
        let func = host::dynamic_func(ty, func);
        self.definitions.push(Definition::Host(module.into(), name.into(), func));
        self
    }

    /// Defines something that lives in a store. Instantiating into another store fails.
    pub fn define(
        &mut self,
        module: impl Into<Name>,
        name: impl Into<Name>,
        item: impl Into<Extern>,
    ) -> &mut Linker {
        self.definitions.push(Definition::Extern(module.into(), name.into(), item.into()));
        self
    }

    /// Defines all exports of an instance under the module name `name`, and only those: earlier
    /// definitions under that name are no longer seen.
    pub fn instance(&mut self, name: impl Into<Name>, instance: Instance) -> &mut Linker {
        let name = name.into();
        self.definitions.retain(|definition| definition.module() != name);
        self.definitions.push(Definition::Instance(name, instance));
        self
    }

    /// Links and instantiates a module, and runs its start function.
    ///
    /// # Errors
    /// When an import is missing or has another type, a resource is over a limit, a segment is out
    /// of bounds, or the start function does not return. Writes that were made to imported memories
    /// and tables by then remain.
    pub fn instantiate(
        &self,
        store: &mut impl AsStore,
        module: &Module,
    ) -> Result<Instance, InstantiateError> {
        let instance = self.instantiate_unstarted(store, module)?;
        instance.run_start(store)?;
        Ok(instance)
    }

    /// The same but for the start function: see [`Instance::run_start`].
    pub(crate) fn instantiate_unstarted(
        &self,
        store: &mut impl AsStore,
        module: &Module,
    ) -> Result<Instance, InstantiateError> {
        let imports = self.resolve(get(store), module)?;
        // SAFETY: the imports were matched against this store and the module.
        unsafe { instantiate(get_mut(store), module, imports) }
    }

    /// Checks that a module could be linked, without any effect.
    ///
    /// # Errors
    /// When an import is missing or has another type.
    pub fn check(&self, store: &impl AsStore, module: &Module) -> Result<(), InstantiateError> {
        self.resolve(get(store), module).map(|_| ())
    }

    fn resolve(
        &self,
        store: &StoreInner,
        module: &Module,
    ) -> Result<Vec<Resolved>, InstantiateError> {
        if !module.engine().is(&self.engine) || !store.engine.is(&self.engine) {
            return Err(InstantiateError::ForeignModule);
        }
        let imports = module.info().imports.iter();
        let resolved: Vec<Resolved> =
            imports.map(|import| self.find(store, module, import)).collect::<Result<_, _>>()?;
        check_addressing(store, module, &resolved)?;
        Ok(resolved)
    }

    fn find(
        &self,
        store: &StoreInner,
        module: &Module,
        import: &Import,
    ) -> Result<Resolved, InstantiateError> {
        let wanted = || module.import_type(&import.ty).describe(&self.engine);
        let names = || (import.module.clone(), import.name.clone());
        let mut candidates = self.definitions.iter().rev();
        let Some(found) = candidates.find_map(|d| d.lookup(store, import)) else {
            let (module, name) = names();
            return Err(InstantiateError::UnknownImport { module, name, wanted: wanted() });
        };
        let mismatch = match &found {
            Resolved::Host(func) => host_mismatch(module, func, &import.ty),
            Resolved::Extern(item) if item.store() != store.id => {
                let (module, name) = names();
                return Err(InstantiateError::ForeignImport { module, name });
            }
            Resolved::Extern(item) => {
                let found = ExternType::of(store, *item);
                let fits = found.matches(&module.import_type(&import.ty), &self.engine);
                (!fits).then(|| found.describe(&self.engine))
            }
        };
        match mismatch {
            None => Ok(found),
            Some(found) => {
                let (module, name) = names();
                let wanted = wanted();
                Err(InstantiateError::IncompatibleImport { module, name, found, wanted })
            }
        }
    }
}

impl Definition {
    fn module(&self) -> &str {
        match self {
            Definition::Host(module, ..)
            | Definition::Extern(module, ..)
            | Definition::Instance(module, _) => module,
        }
    }

    fn lookup(&self, store: &StoreInner, import: &Import) -> Option<Resolved> {
        if self.module() != import.module {
            return None;
        }
        match self {
            Definition::Host(_, name, func) => {
                (*name == import.name).then(|| Resolved::Host(Rc::clone(func)))
            }
            Definition::Extern(_, name, item) => {
                (*name == import.name).then_some(Resolved::Extern(*item))
            }
            Definition::Instance(_, instance) if instance.store == store.id => {
                instance.export_of(store, &import.name).map(Resolved::Extern)
            }
            Definition::Instance(..) => None,
        }
    }
}

/// The host function's type in words, unless it is what is wanted.
fn host_mismatch(module: &Module, func: &HostFunc, wanted: &ImportType) -> Option<String> {
    if let ImportType::Func(ty) = *wanted {
        let wanted = module.type_id(ty);
        let ty = module.engine().func_type(wanted);
        let same = ty.params[..] == func.params[..] && ty.results[..] == func.results[..];
        if same && module.engine().types().is_plain(wanted) {
            return None;
        }
    }
    let found = FuncType { params: func.params.to_vec(), results: func.results.to_vec() };
    Some(format!("function {found}"))
}

impl Extern {
    fn store(&self) -> StoreId {
        match self {
            Extern::Func(item) => item.store,
            Extern::Table(item) => item.store,
            Extern::Memory(item) => item.store,
            Extern::Global(item) => item.store,
            Extern::Tag(item) => item.store,
        }
    }
}
