# A repository with history is cloned, checked, and worked in.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE=2024-02-02T00:00:00 GIT_COMMITTER_DATE=2024-02-02T00:00:00
git clone -q --no-local "$1/history" clone
cd clone
git fsck --full --strict
git checkout -q -b work HEAD~7
seq 100 >dir-1/new
git add .
git commit -q -m "in the clone"
git checkout -q main
git merge -q -m merged work
git -c pack.threads=1 gc -q --aggressive
git fsck --full --strict
[ -z "$(git status --porcelain)" ]
