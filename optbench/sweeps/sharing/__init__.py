"""A study that several processes, on any number of machines, work on together.

Each process runs the whole program: it composes the same jobs in the same order, and draws the same
points of a search. It leaves a job to the process that has claimed the job, and then reads the
result from the run's folder. So each phase of a tuned study begins when the phase before is whole,
whichever processes have finished it.
"""
