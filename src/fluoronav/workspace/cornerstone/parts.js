// What the workspace uses of Cornerstone3D (MIT licence) and of vtk.js (BSD licence), on which it is built; bundled into
// ../page/cornerstone.js, which ships.
export { cache, Enums, imageLoader, init, RenderingEngine, utilities, volumeLoader } from "@cornerstonejs/core";
export {
  addTool, Enums as ToolEnums, init as initTools, PanTool, ToolGroupManager, TrackballRotateTool, WindowLevelTool, ZoomTool,
} from "@cornerstonejs/tools";
export { default as vtkActor } from "@kitware/vtk.js/Rendering/Core/Actor.js";
export { default as vtkCellArray } from "@kitware/vtk.js/Common/Core/CellArray.js";
export { default as vtkDataArray } from "@kitware/vtk.js/Common/Core/DataArray.js";
export { default as vtkMapper } from "@kitware/vtk.js/Rendering/Core/Mapper.js";
export { default as vtkPoints } from "@kitware/vtk.js/Common/Core/Points.js";
export { default as vtkPolyData } from "@kitware/vtk.js/Common/DataModel/PolyData.js";
