//! A job of a `.gitlab-ci.yml`, of the little YAML that ours is written in: `variables` and `script`, one
//! plain value a line.

use std::collections::BTreeMap;

/// See the module.
pub struct Job {
    variables: BTreeMap<String, String>,
    lines: Vec<String>,
}

impl Job {
    /// The job of that name; panics on what is written otherwise.
    pub fn read(file: &str, name: &str) -> Self {
        let mut lines = file.lines().skip_while(|line| *line != format!("{name}:"));
        assert!(lines.next().is_some(), "there is no job {name}");
        let mut job = Self {
            variables: BTreeMap::new(),
            lines: Vec::new(),
        };
        let mut section = "";
        for line in lines.take_while(|line| line.is_empty() || line.starts_with(' ')) {
            let text = line.trim_start();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if line.len() - text.len() == 2 {
                section = text.split(':').next().unwrap();
                continue;
            }
            match section {
                "variables" => {
                    let (key, value) = text.split_once(": ").expect(text);
                    job.variables.insert(key.to_owned(), plain(value));
                }
                "script" => job.lines.push(plain(text.strip_prefix("- ").expect(text))),
                _ => {}
            }
        }
        assert!(!job.lines.is_empty(), "{name} has no script");
        job
    }

    /// Its lines as a runner runs them, with the job's variables and those of this run, which stand over
    /// them; without some, which the test's own surroundings have.
    pub fn script(&self, of_this_run: &[(&str, &str)], without: &[&str]) -> String {
        let mut variables = self.variables.clone();
        for name in without {
            assert!(variables.remove(*name).is_some(), "{name} is not the job's");
        }
        for (key, value) in of_this_run {
            variables.insert((*key).to_owned(), (*value).to_owned());
        }
        let export = |(key, value): (&String, &String)| format!("export {key}='{value}'\n");
        let exports: String = variables.iter().map(export).collect();
        exports + &self.lines.join("\n")
    }
}

/// A plain scalar: what stands there is the value [YAML 1.2, 7.3.3].
fn plain(text: &str) -> String {
    let special = text.starts_with(['"', '\'', '|', '>', '[', '{', '&', '*', '!', '%', '@', '`']);
    assert!(
        !special && !text.contains(": ") && !text.contains(" #"),
        "not a plain value: {text}"
    );
    text.to_owned()
}
