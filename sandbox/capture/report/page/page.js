"use strict";
// Search in logs and events. The page can be read without it; it only hides, shows and marks text that is there.
(function () {
  const LONGEST = 5000;

  function containing(line, wanted) {
    return line.toLowerCase().includes(wanted);
  }

  // Text with what was looked for marked, built of nodes: nothing of a log is ever read as HTML.
  function marked(line, wanted) {
    const made = document.createDocumentFragment();
    const lower = line.toLowerCase();
    if (lower.length !== line.length) {
      made.append(line);
      return made;
    }
    let from = 0;
    for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
      made.append(line.slice(from, at));
      const mark = document.createElement("mark");
      mark.textContent = line.slice(at, at + wanted.length);
      made.append(mark);
      from = at + wanted.length;
    }
    made.append(line.slice(from));
    return made;
  }

  const logs = Array.from(document.querySelectorAll("#logs details")).map(function (details) {
    const pre = details.querySelector("pre");
    return { details: details, pre: pre, text: pre.textContent, open: details.open,
      count: details.querySelector(".count") };
  });

  function searchLogs(wanted) {
    let found = 0;
    for (const log of logs) {
      if (!wanted) {
        log.details.hidden = false;
        log.details.open = log.open;
        log.pre.textContent = log.text;
        log.count.textContent = "";
        continue;
      }
      const lines = log.text.split("\n").filter(function (line) { return containing(line, wanted); });
      found += lines.length;
      log.details.hidden = lines.length === 0;
      log.details.open = lines.length > 0;
      log.count.textContent = lines.length + (lines.length === 1 ? " line" : " lines");
      log.pre.replaceChildren();
      for (const line of lines.slice(0, LONGEST)) {
        log.pre.append(marked(line, wanted), "\n");
      }
      if (lines.length > LONGEST) {
        log.pre.append("… " + (lines.length - LONGEST) + " more");
      }
    }
    return found;
  }

  const rows = Array.from(document.querySelectorAll("#events tbody tr"));

  function searchEvents(wanted) {
    let found = 0;
    for (const row of rows) {
      row.hidden = Boolean(wanted) && !containing(row.textContent, wanted);
      found += row.hidden ? 0 : 1;
    }
    return found;
  }

  function connect(id, search) {
    const box = document.getElementById(id);
    if (!box) {
      return;
    }
    box.hidden = false;
    const input = box.querySelector("input");
    const said = box.querySelector("output");
    let waiting = 0;
    input.addEventListener("input", function () {
      clearTimeout(waiting);
      waiting = setTimeout(function () {
        const wanted = input.value.trim().toLowerCase();
        const found = search(wanted);
        said.textContent = wanted ? found + " found" : "";
      }, 120);
    });
  }

  connect("search-logs", searchLogs);
  connect("search-events", searchEvents);
})();
