#!/usr/bin/env bash
# zensical 0.0.73: `zensical build --strict` fails on a broken link to a page, but
# builds with exit code 0 and "No issues found" when a picture does not exist, when
# the navigation names a page that does not exist, and when a page stands in no
# navigation; `validation: omitted_files: warn` changes nothing. MkDocs 1.6.1 with
# the same mkdocs.yml and --strict fails on all four.
#
# Output seen:
#   broken link to a page                    zensical 1  mkdocs 1
#   picture that does not exist              zensical 0  mkdocs 1
#   navigation entry without a page          zensical 0  mkdocs 1
#   page outside the navigation              zensical 0  mkdocs 1
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  zensical==0.0.73 mkdocs==1.6.1
cd "$folder"
mkdir docs

# page, navigation: exit codes of both generators.
try() {
  rm -rf site .cache docs/*
  printf '# Home\n\n%s\n' "$2" > docs/index.md
  [ "$3" != omitted ] || printf '# More\n' > docs/more.md
  {
    echo 'site_name: s'
    echo 'validation: {omitted_files: warn, unrecognized_links: warn}'
    echo 'nav: [index.md]' | sed "s/index.md/index.md$4/"
  } > mkdocs.yml
  local zensical=0 mkdocs=0
  venv/bin/zensical build --strict > /dev/null 2>&1 || zensical=1
  venv/bin/mkdocs build --strict > /dev/null 2>&1 || mkdocs=1
  printf '%-40s zensical %s  mkdocs %s\n' "$1" "$zensical" "$mkdocs"
  [ "$zensical $mkdocs" = "$5" ]
}

try 'broken link to a page' '[x](none.md)' '' '' '1 1'
try 'picture that does not exist' '![x](none.png)' '' '' '0 1'
try 'navigation entry without a page' 'x' '' ', none.md' '0 1'
try 'page outside the navigation' 'x' omitted '' '0 1'
