//! Debian's kernels, fetched by apt into `target/vm` with settings of their own: the host's apt stays as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::cargo::installed;

/// A kernel series and the Debian suite that carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    /// What `--kernel` and the tables call it.
    pub(crate) version: &'static str,
    suite: &'static str,
}

/// Every kernel that the suite runs on, the oldest first.
pub(crate) const ALL: [Series; 4] = [
    Series {
        version: "5.10",
        suite: "bullseye",
    },
    Series {
        version: "6.1",
        suite: "bookworm",
    },
    Series {
        version: "6.12",
        suite: "trixie",
    },
    Series {
        version: "7.3",
        suite: "trixie-backports",
    },
];

/// A kernel on disk.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    /// What `uname -r` says there.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// Has `modules.dep`.
    pub(crate) modules: PathBuf,
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// The series of these names; `all` is each of them.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Series>> {
    if names.iter().any(|name| name == "all") {
        return Ok(ALL.to_vec());
    }
    let find = |name: &String| {
        ALL.into_iter()
            .find(|series| series.version == name)
            .with_context(|| {
                let known: Vec<&str> = ALL.iter().map(|series| series.version).collect();
                format!("no kernel {name}: choose of {}, all", known.join(", "))
            })
    };
    names.iter().map(find).collect()
}

/// Fetches what is not there yet.
pub(crate) fn fetch(series: &[Series], dir: &Path) -> Result<Vec<Kernel>> {
    let apt = Apt::new(dir)?;
    series.iter().map(|&series| apt.kernel(series)).collect()
}

struct Apt {
    dir: PathBuf,
    config: PathBuf,
}

impl Apt {
    fn new(dir: &Path) -> Result<Self> {
        let config = dir.join("apt.conf");
        Ok(Self {
            dir: dir.to_path_buf(),
            config,
        })
    }

    fn kernel(&self, series: Series) -> Result<Kernel> {
        let root = self.dir.join(series.version);
        // Made last: a fetch that was interrupted starts again.
        let done = root.join("complete");
        if !done.exists() {
            println!("fetching kernel {}", series.version);
            let _ = fs::remove_dir_all(&root);
            self.unpack(series, &root)
                .with_context(|| format!("fetch kernel {} through apt", series.version))?;
            fs::write(&done, "")?;
        }
        let modules = modules_dir(&root)?;
        let release = modules
            .file_name()
            .context("modules have no release")?
            .to_string_lossy()
            .into_owned();
        let candidates = [
            root.join("boot").join(format!("vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ];
        let image = candidates.into_iter().find(|path| path.exists());
        let image = image.with_context(|| format!("no vmlinuz in {}", root.display()))?;
        Ok(Kernel {
            series,
            release,
            image,
            modules,
        })
    }

    fn unpack(&self, series: Series, root: &Path) -> Result<()> {
        self.prepare()?;
        // linux-image-cloud-amd64 -> the image of the day -> in newer suites its kernel and its modules.
        let meta = format!("linux-image-cloud-{}", architecture()?);
        let mut packages = vec![];
        for image in self.depends(series, &meta)? {
            if image.starts_with("linux-image-") {
                let parts = self.depends(series, &image)?;
                packages.extend(parts.into_iter().filter(|name| {
                    ["linux-binary-", "linux-modules-"]
                        .iter()
                        .any(|part| name.starts_with(part))
                }));
                packages.push(image);
            }
        }
        if packages.is_empty() {
            bail!("apt knows no {meta} in {}", series.suite);
        }
        let debs = root.join("debs");
        fs::create_dir_all(&debs)?;
        run(self
            .apt("apt-get")
            .args(["download", "-qq"])
            .args(&packages)
            .current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(root))?;
        }
        fs::remove_dir_all(&debs)?;
        let modules = modules_dir(root)?;
        let release = modules.file_name().context("modules have no release")?;
        // depmod wants lib/modules below its base.
        let base = modules.ancestors().nth(3).context("modules have no base")?;
        run(Command::new(sbin("depmod")).arg("-b").arg(base).arg(release))
    }

    /// The names that a package depends on, as of a suite.
    fn depends(&self, series: Series, package: &str) -> Result<Vec<String>> {
        let output = self
            .apt("apt-cache")
            .args(["depends", "--important", "-t", series.suite, package])
            .output()
            .context("run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Own lists of the suites' packages, renewed at most once a day.
    fn prepare(&self) -> Result<()> {
        for program in ["apt-get", "dpkg-deb", "depmod"] {
            if !installed(program) {
                bail!(
                    "no {program}: kernels are fetched as Debian packages; run scripts/setup.sh --vm on Debian or Ubuntu"
                );
            }
        }
        let fresh = |path: &Path| {
            let age = fs::metadata(path)
                .and_then(|meta| meta.modified())
                .ok()?
                .elapsed()
                .ok()?;
            Some(age.as_secs() < 24 * 3600)
        };
        let stamp = self.dir.join("lists/stamp");
        if fresh(&stamp) == Some(true) {
            return Ok(());
        }
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.dir.join(folder))?;
        }
        let mirror = mirror();
        let signed = if Path::new(KEYRING).exists() {
            format!("[signed-by={KEYRING}] ")
        } else {
            String::new()
        };
        let sources: String = ALL
            .iter()
            .map(|series| format!("deb {signed}{mirror} {} main\n", series.suite))
            .collect();
        fs::write(self.dir.join("sources.list"), sources)?;
        let dir = self.dir.display();
        let settings = format!(
            "Dir::Etc::SourceList \"{dir}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::State::Lists \"{dir}/lists\";\nDir::Cache \"{dir}/cache\";\n\
             APT::Architecture \"{}\";\nAPT::Architectures {{ \"{0}\"; }};\nAPT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n",
            architecture()?
        );
        fs::write(&self.config, settings)?;
        run(self.apt("apt-get").args(["update", "-qq"]))?;
        fs::write(stamp, "")?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config);
        command
    }
}

/// Where this machine gets Debian from, else Debian's own address.
fn mirror() -> String {
    let known = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ])
        .output();
    let known = known.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let first = known.unwrap_or_default().lines().next().map(str::to_owned);
    first.unwrap_or_else(|| DEFAULT_MIRROR.to_owned())
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        other => bail!("kernels are booted on x86_64 hosts only, this is {other}"),
    }
}

fn modules_dir(root: &Path) -> Result<PathBuf> {
    for folder in ["usr/lib/modules", "lib/modules"] {
        if let Some(found) = fs::read_dir(root.join(folder))
            .ok()
            .and_then(|mut dir| dir.next())
        {
            return Ok(found?.path());
        }
    }
    bail!("no modules in {}", root.display())
}

fn sbin(program: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(program);
    if path.exists() {
        path
    } else {
        PathBuf::from(program)
    }
}

/// Runs a command quietly; what it said is part of the error.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!(
            "{name}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
