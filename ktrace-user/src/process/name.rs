//! What to call a process that does not say its name: after the program that an interpreter or
//! virtual machine runs, or its executable.

use std::collections::HashMap;
use std::path::Path;

/// Names that the user gives services, by what ktrace would call them otherwise (the derived
/// `service.name`), by the executable's full path or its file name, or by container id. The most
/// exact wins: container, path, derived name, file name.
#[derive(Clone, Debug, Default)]
pub struct ServiceNames {
    names: HashMap<String, String>,
}

impl ServiceNames {
    /// The user's name for a process, if any of its keys is in the map. Keys are tried in their
    /// order.
    pub(super) fn find<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Option<&str> {
        keys.into_iter().find_map(|key| self.names.get(key)).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for ServiceNames {
    /// From pairs of a key and the service's name.
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        Self { names: pairs.into_iter().collect() }
    }
}

/// A derived name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Derived {
    pub(super) name: String,
    /// `process.runtime.name`, where the executable's name makes it clear.
    pub(super) runtime: Option<&'static str>,
}

/// An interpreter or virtual machine: which of its options take the next argument as their value,
/// and how its program is found.
struct Runtime {
    /// File names of the executable, without version.
    executables: &'static [&'static str],
    name: Option<&'static str>,
    /// Options whose value is the next argument.
    with_value: &'static [&'static str],
    /// Options after which no program follows: code is given in place, or only a question asked.
    without_program: &'static [&'static str],
}

const RUNTIMES: [Runtime; 8] = [
    Runtime {
        executables: &["java"],
        // Which of the virtual machines it is cannot be seen from outside.
        name: None,
        with_value: &[
            "-cp",
            "-classpath",
            "--class-path",
            "-p",
            "--module-path",
            "--upgrade-module-path",
            "--add-modules",
            "--add-exports",
            "--add-opens",
            "--add-reads",
            "--limit-modules",
            "--patch-module",
            "--enable-native-access",
            "--source",
        ],
        without_program: &["-version", "--version", "-d", "--describe-module", "--list-modules"],
    },
    Runtime {
        executables: &["python"],
        name: Some("cpython"),
        with_value: &["-W", "-X", "--check-hash-based-pycs"],
        without_program: &["-c", "-V", "--version"],
    },
    Runtime {
        executables: &["pypy"],
        name: Some("pypy"),
        with_value: &["-W", "-X"],
        without_program: &["-c", "-V", "--version"],
    },
    Runtime {
        executables: &["node", "nodejs"],
        name: Some("nodejs"),
        with_value: &[
            "-r",
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "-C",
            "--conditions",
        ],
        without_program: &["-e", "--eval", "-p", "--print", "-v", "--version"],
    },
    Runtime {
        executables: &["ruby"],
        name: Some("ruby"),
        with_value: &["-r", "-I", "-C", "-E"],
        without_program: &["-e", "-v", "--version"],
    },
    Runtime {
        executables: &["perl"],
        name: Some("perl"),
        with_value: &["-I"],
        without_program: &["-e", "-E"],
    },
    Runtime {
        executables: &["php"],
        name: Some("php"),
        with_value: &["-c", "-d", "-z"],
        without_program: &["-r", "-v"],
    },
    Runtime {
        executables: &["dotnet"],
        name: Some(".NET"),
        with_value: &["--depsfile", "--runtimeconfig", "--additionalprobingpath", "--fx-version"],
        without_program: &["--info", "--version"],
    },
];

/// Derives a name from the executable's file name and the arguments (the first is the program's own
/// name). Both may be anything.
pub(super) fn derive(executable: &str, arguments: &[String]) -> Derived {
    let plain = executable.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let runtime = RUNTIMES
        .iter()
        .find(|runtime| runtime.executables.contains(&plain) || runtime.executables.contains(&executable));
    let Some(runtime) = runtime else {
        return Derived { name: executable.to_owned(), runtime: None };
    };
    let name = program(runtime, plain, arguments.get(1..).unwrap_or_default())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| executable.to_owned());
    Derived { name, runtime: runtime.name }
}

fn program(runtime: &Runtime, plain: &str, arguments: &[String]) -> Option<String> {
    let java = plain == "java";
    let python = plain == "python" || plain == "pypy";
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        if java && argument == "-jar" {
            return arguments.next().map(stem);
        }
        if java && (argument == "-m" || argument == "--module") {
            return arguments.next().map(main_class);
        }
        if java && let Some(module) = argument.strip_prefix("--module=") {
            return Some(main_class(module));
        }
        if python && let Some(module) = python_module(argument) {
            let module = if module.is_empty() { arguments.next()? } else { module };
            return Some(module.strip_suffix(".__main__").unwrap_or(module).to_owned());
        }
        if runtime.without_program.contains(&argument) {
            return None;
        }
        if runtime.with_value.contains(&argument) {
            arguments.next();
        } else if argument == "--" {
            return arguments.next().map(script);
        } else if java && argument.starts_with('@') || argument.starts_with('-') || argument.is_empty() {
            // An option in one argument, or a file with further options.
        } else if java {
            let source_file = Path::new(argument).extension().is_some_and(|extension| extension == "java");
            return Some(if source_file { stem(argument) } else { main_class(argument) });
        } else {
            return Some(script(argument));
        }
    }
    None
}

/// `-m`, also behind other letters (`-um`) or with the module in the same argument
/// (`-mhttp.server`): what follows the `m`.
fn python_module(argument: &str) -> Option<&str> {
    let letters = argument.strip_prefix('-').filter(|letters| !letters.starts_with('-'))?;
    let (flags, module) = letters.split_once('m')?;
    flags.chars().all(|flag| "bBdEhiIOPqRsSuvx".contains(flag)).then_some(module)
}

/// The class of `com.example.Main` or `module/com.example.Main`.
fn main_class(text: &str) -> String {
    let class = text.rsplit('/').next().unwrap_or(text);
    class.rsplit('.').next().unwrap_or(class).to_owned()
}

/// A script's name without folder and extension; where every project has a file of that name, the
/// folder's.
fn script(path: &str) -> String {
    const NAMELESS: [&str; 2] = ["index", "__main__"];
    const INNER: [&str; 6] = ["src", "dist", "lib", "bin", "build", "."];
    let name = stem(path);
    if !NAMELESS.contains(&name.as_str()) {
        return name;
    }
    Path::new(path)
        .ancestors()
        .skip(1)
        .filter_map(|folder| folder.file_name()?.to_str())
        .find(|folder| !INNER.contains(folder))
        .map_or(name, str::to_owned)
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map_or_else(|| path.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_names() {
        let long_class_path = "java\0-cp\0".to_owned()
            + &"/very/long.jar:".repeat(100)
            + "\0kafka.tools.ProducerPerformance\0--topic\0t";
        for (executable, arguments, name, runtime) in [
            ("java", "java\0-jar\0/opt/orders-api-1.2.3.jar", "orders-api-1.2.3", None),
            ("java", "java\0-Xmx1g\0-javaagent:/a.jar\0-Dx=y\0-jar\0app.jar\0--port\0x", "app", None),
            ("java", "java\0-cp\0/libs/*\0com.example.billing.BillingApp\0x.jar", "BillingApp", None),
            ("java", &long_class_path, "ProducerPerformance", None),
            ("java", "java\0@/opt/options\0--class-path\0a.jar\0Main", "Main", None),
            ("java", "java\0--module-path\0/m\0-m\0shop.orders/com.shop.Orders", "Orders", None),
            ("java", "java\0--module=shop.orders/com.shop.Orders", "Orders", None),
            ("java", "java\0--add-opens\0java.base/java.lang=ALL-UNNAMED\0a.b.C", "C", None),
            ("java", "java\0-XX:+UseZGC\0/tmp/Hello.java", "Hello", None),
            ("java", "java\0-version", "java", None),
            ("java", "java\0-cp", "java", None),
            ("python3.11", "python3\0/app/consumer.py\0--group\0g", "consumer", Some("cpython")),
            ("python3", "python3\0-u\0-W\0ignore\0app.py", "app", Some("cpython")),
            ("python3", "python3\0-m\0shop.worker\0-v", "shop.worker", Some("cpython")),
            ("python3", "python3\0-um\0shop.__main__", "shop", Some("cpython")),
            ("python3", "python3\0-mshop", "shop", Some("cpython")),
            ("python3", "python3\0-c\0import secrets; password='m'", "python3", Some("cpython")),
            ("python3", "python3\0/usr/bin/gunicorn\0app:app", "gunicorn", Some("cpython")),
            ("python3", "python3\0/srv/shop/__main__.py", "shop", Some("cpython")),
            ("pypy3", "pypy3\0x.py", "x", Some("pypy")),
            ("node", "node\0--max-old-space-size=1\0-r\0./tracing.js\0server.js", "server", Some("nodejs")),
            ("node", "node\0/srv/orders/dist/index.js", "orders", Some("nodejs")),
            ("node", "node\0index.js", "index", Some("nodejs")),
            ("node", "npm start", "node", Some("nodejs")),
            ("node", "node\0-e\0code", "node", Some("nodejs")),
            ("node20", "node20\0--\0a.mjs", "a", Some("nodejs")),
            ("ruby3.1", "ruby\0-I\0lib\0bin/karafka\0server", "karafka", Some("ruby")),
            ("perl", "perl\0-w\0feed.pl", "feed", Some("perl")),
            ("php8.2", "php\0-d\0a=b\0worker.php", "worker", Some("php")),
            ("dotnet", "dotnet\0/app/Shop.Orders.dll", "Shop.Orders", Some(".NET")),
            ("kcat", "kcat\0-b\0localhost", "kcat", None),
            ("orders", "/usr/local/bin/orders\0-X\0sasl.password=secret", "orders", None),
            ("orders-2.0", "./orders-2.0", "orders-2.0", None),
            ("java", "", "java", None),
        ] {
            let arguments: Vec<String> = arguments.split('\0').map(str::to_owned).collect();
            let derived = derive(executable, &arguments);
            assert_eq!((derived.name.as_str(), derived.runtime), (name, runtime), "{arguments:?}");
        }
    }

    #[test]
    fn the_users_names() {
        let names: ServiceNames =
            [("/usr/bin/kcat".to_owned(), "feeder".to_owned()), ("kcat".to_owned(), "other".to_owned())]
                .into_iter()
                .collect();
        assert_eq!(names.find(["/usr/bin/kcat", "kcat"]), Some("feeder"));
        assert_eq!(names.find(["/opt/kcat", "kcat"]), Some("other"));
        assert_eq!(names.find(["java"]), None);
        assert_eq!(ServiceNames::default().find(["kcat"]), None);
    }
}
