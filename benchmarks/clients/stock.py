"""OpenAI's fine-tuning as its guides write it: upload, train, follow, read, ask. FILE MODEL"""

import csv
import io
import sys
import time
from pathlib import Path

import openai
from openai import OpenAI

client = OpenAI()
file, model = sys.argv[1:]
with Path(file).open("rb") as content:
    uploaded = client.files.create(file=content, purpose="fine-tune")
print(f"openai {openai.__version__}: {uploaded.id}, {uploaded.bytes} bytes, {uploaded.status}")
job = client.fine_tuning.jobs.create(
    model=model, training_file=uploaded.id, suffix="stock",
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
)  # fmt: skip
seen = set()
while True:
    job = client.fine_tuning.jobs.retrieve(job.id)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
    for event in reversed(events):
        if event.id not in seen:
            seen.add(event.id)
            print(f"  {event.message}")
    if job.status in ("succeeded", "failed", "cancelled"):
        break
    time.sleep(1)
print(f"{job.status}: {job.fine_tuned_model}, {job.trained_tokens} tokens")
checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
print(f"{len(checkpoints)} checkpoints, the last of step {checkpoints[0].step_number}")
told = client.files.content(job.result_files[0]).read()
rows = list(csv.DictReader(io.StringIO(told.decode())))
print(f"result file: {len(rows)} steps, losses {rows[0]['train_loss']} to {rows[-1]['train_loss']}")
asked = [{"role": "user", "content": "Turn on the light in the kitchen."}]
whole = client.chat.completions.create(
    model=job.fine_tuned_model, messages=asked, max_tokens=24, temperature=0
)
stream = client.chat.completions.create(
    model=job.fine_tuned_model, messages=asked, max_tokens=24, temperature=0, stream=True
)
text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
print(f"answer: {whole.choices[0].message.content!r}, streamed alike: "
      f"{text == whole.choices[0].message.content}")  # fmt: skip
print(client.models.delete(job.fine_tuned_model))
try:
    client.models.retrieve(job.fine_tuned_model)
except openai.NotFoundError as error:
    print(f"afterwards: {error.code}")
